"""Reads and writes checkpoint files: JSON, safetensors, NumPy archives. All that is read from a
file is checked."""

import contextlib
import functools as ft
import json
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from ..errors import InputError, naming
from ..packages import require


_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_DTYPES = dict(F64=np.float64, F32=np.float32, F16=np.float16, BF16=ml_dtypes.bfloat16)
_DTYPES |= dict(I64=np.int64, I32=np.int32, U8=np.uint8, BOOL=np.bool_)

_CONFIG = "__config__"
# Raised for damaged archives.
_DAMAGED = (zipfile.BadZipFile, zlib.error, OSError, EOFError, LookupError, ValueError)
_DAMAGED += (MemoryError,)


class StoredTensor(NamedTuple):
    """A tensor of a checkpoint. `read` returns its numbers in new memory."""

    dtype: np.dtype
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def read_json(file: Path) -> dict[str, Any]:
    """Reads the object in a JSON file."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}.") from None
    return _json_object(content, file)


def write_options(file: Path, options: Mapping[str, Any]) -> None:
    """Write options as JSON."""
    with naming(file):
        file.write_text(json.dumps(options, indent=2) + "\n", encoding="utf-8")


def _json_object(content: str | bytes, file: Path) -> dict[str, Any]:
    with contextlib.suppress(ValueError, RecursionError):
        if isinstance(value := json.loads(content), dict):
            return value
    raise InputError(f"{file} does not hold a JSON object of options.")


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """All tensors of `model.safetensors`, or of the shards in its index."""
    # transformers also prefers the single file.
    if (folder / _SINGLE).is_file():
        return tensors_in(folder, _SINGLE)
    index = folder / _INDEX
    if not index.is_file():
        raise InputError(
            f"{folder} has no {_SINGLE}. If it has pickles, such as pytorch_model.bin, which "
            "can run code, convert them once, if you trust them: python -c "
            f"\"from transformers import AutoModel; AutoModel.from_pretrained('{folder}')"
            f".save_pretrained('{folder}')\""
        )
    places = read_json(index).get("weight_map")
    names = list(places.values()) if isinstance(places, dict) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"{index} is damaged: weight_map does not map tensors to files.")
    tensors: dict[str, StoredTensor] = {}
    for name in sorted(set(names)):
        shard = tensors_in(folder, name)
        if twice := tensors.keys() & shard.keys():
            raise InputError(f"{folder}: {min(twice)} is in {name} and in another shard.")
        tensors |= shard
    return tensors


def check_inside(folder: Path, name: str) -> Path:
    """The file `name` in a folder. Raises `InputError` for a link out of the folder."""
    file = folder / name
    root = folder.resolve()
    # The cache of Hugging Face links to `blobs`.
    roots = [root]
    if root.parent.name == "snapshots":
        roots.append(root.parent.parent / "blobs")
    if not any(file.resolve().is_relative_to(x) for x in roots):
        raise InputError(f"{folder}: {name} links to {file.resolve()}; copy it here.")
    return file


def tensors_in(folder: Path, name: str) -> dict[str, StoredTensor]:
    """The tensors of one file."""
    require("safetensors", "hf", "checkpoints are read by")
    from safetensors import SafetensorError, safe_open

    file = check_inside(folder, name)
    try:
        with safe_open(file, "np") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            headers = {x: (y.get_dtype(), tuple(y.get_shape())) for x, y in slices.items()}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file} is missing or damaged: {error}.") from None
    if unknown := {dtype for dtype, _ in headers.values()} - _DTYPES.keys():
        raise InputError(
            f"{file} has tensors of {', '.join(sorted(unknown))}; use {', '.join(_DTYPES)}."
        )
    return {
        name: StoredTensor(np.dtype(_DTYPES[dtype]), shape, ft.partial(_read, file, name))
        for name, (dtype, shape) in headers.items()
    }


def _read(file: Path, name: str) -> np.ndarray:
    # A copy, since a mapped file would count twice in memory.
    from safetensors import safe_open

    with safe_open(file, "np") as opened:
        return opened.get_tensor(name)


def write_tensors(
    folder: str | Path, tensors: Mapping[str, np.ndarray], name: str = _SINGLE
) -> None:
    """Write tensors to `model.safetensors`, or the file `name`, in a folder."""
    require("safetensors", "hf", "checkpoints are written by")
    from safetensors.numpy import save_file

    # `ascontiguousarray` would add an axis to a scalar.
    contiguous = {name: np.asarray(x, order="C") for name, x in tensors.items()}
    file = Path(folder, name)
    save_file(contiguous, file, metadata={"format": "pt"})
    # safetensors gives access to the owner only.
    file.chmod(file.parent.stat().st_mode & 0o666)


def read_archive(path: Path) -> tuple[dict[str, Any], dict[str, StoredTensor]]:
    """The options and tensors of an archive of glassllm."""
    try:
        with zipfile.ZipFile(path) as archive:
            arrays = {}
            for name in archive.namelist():
                with archive.open(name) as file:
                    array = np.lib.format.read_array(file, allow_pickle=False)
                arrays[name.removesuffix(".npy")] = array
        content = str(arrays.pop(_CONFIG))
    except _DAMAGED as error:
        raise InputError(f"{path} is damaged or not an archive of glassllm: {error}.") from None
    options = _json_object(content, path)
    tensors = {k: StoredTensor(x.dtype, x.shape, x.copy) for k, x in arrays.items()}
    return options | {"model_type": "glassllm"}, tensors


def write_archive(
    path: Path, options: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> None:
    """Write an archive of glassllm."""
    values = {name: value for name, value in options.items() if name != "model_type"}
    arrays = {_CONFIG: np.array(json.dumps(values)), **tensors}
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path), path.open("wb") as file:  # a path would get the suffix .npz
        np.savez_compressed(file, allow_pickle=False, **arrays)
