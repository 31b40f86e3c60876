"""Files of checkpoints: JSON, safetensors and NumPy archives. They come from others, so their
sizes, depths and numbers are looked at before they are believed."""

import contextlib
import functools as ft
import json
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..errors import InputError, naming


# Bytes. The largest known, the index of a model of a trillion weights, has 13 MB.
_MOST_JSON = 32 * 2**20

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(bool),
}

_CONFIG = "__config__"
# Trained weights hardly shrink. What unpacks to more than this, and to more than so many times
# the archive, holds none.
_MOST_BYTES = 64 * 2**20
_MOST_TIMES = 20


class StoredTensor(NamedTuple):
    """A tensor of a checkpoint. `read` gives its numbers, which the caller may keep."""

    dtype: np.dtype
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file of at most 32 MiB, with finite numbers and different keys."""
    try:
        with file.open("rb") as stream:
            content = stream.read(_MOST_JSON + 1)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}.") from None
    return _json_object(content, file)


def _json_object(content: str | bytes, file: Path) -> dict[str, Any]:
    if len(content) > _MOST_JSON:
        raise InputError(f"{file} holds JSON of more than {_MOST_JSON:,} bytes; it is refused.")
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_checked_object)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else error
        raise InputError(f"{file} is no JSON: {reason}.") from None
    if not isinstance(value, dict):
        raise InputError(f"{file} holds no object of options.")
    return value


def _checked_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(f"the key {name!r} occurs twice in one object")
        if not _finite(value):
            raise ValueError(f"{name} = {value} is not finite")
        values[name] = value
    return values


def _finite(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """All tensors of `model.safetensors`, else of the shards that its index names."""
    # In this order, as transformers does where there are both.
    if (folder / _SINGLE).is_file():
        return _tensors(_inside(folder, _SINGLE))
    if not (folder / _INDEX).is_file():
        raise InputError(_no_weights(folder))
    tensors: dict[str, StoredTensor] = {}
    for name in _shards(folder):
        shard = _tensors(_inside(folder, name))
        if twice := tensors.keys() & shard.keys():
            raise InputError(f"{folder}: {min(twice)} is in {name} and in another shard.")
        tensors |= shard
    return tensors


def _shards(folder: Path) -> list[str]:
    places = read_json(folder / _INDEX).get("weight_map")
    names = list(places.values()) if isinstance(places, dict) else []
    if not names or not all(map(_is_name, names)):
        raise InputError(
            f"{folder / _INDEX} is damaged: its weight_map is no table from tensors to files; "
            "download it again."
        )
    shards = sorted(set(names))
    if missing := [name for name in shards if not (folder / name).is_file()]:
        raise InputError(
            f"{folder}: {len(missing)} of the {len(shards)} shards of {_INDEX} are "
            f"missing: {', '.join(missing[:8])}. Download them again."
        )
    return shards


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) < 256 and "\0" not in value


def _inside(folder: Path, name: str) -> Path:
    """A file in the folder. The links in a cache of Hugging Face lead to its `blobs`."""
    own = folder.resolve()
    allowed = [own] + [own.parent.parent / "blobs"] * (own.parent.name == "snapshots")
    file = (folder / name).resolve()
    if not any(file.is_relative_to(root) for root in allowed):
        raise InputError(
            f"{folder}: {name} is {file}, a file outside of the folder of the checkpoint; it "
            "is not read. Copy it into the folder where you trust it."
        )
    return folder / name


def _no_weights(folder: Path) -> str:
    pickles = sorted(p.name for p in folder.glob("*.bin"))
    if not pickles:
        return f"{folder} has no {_SINGLE}; it is not the folder of a checkpoint."
    return (
        f"{folder} has its weights in {', '.join(pickles)}, a pickle, which can run code when "
        "it is opened and is never read here. Convert it once, where you trust it: python -c "
        f"\"from transformers import AutoModel; AutoModel.from_pretrained('{folder}')"
        f".save_pretrained('{folder}', safe_serialization=True)\""
    )


def _tensors(file: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file, whose header the library checks."""
    try:
        with safe_open(file, "np") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            headers = {x: (y.get_dtype(), tuple(y.get_shape())) for x, y in slices.items()}
    except SafetensorError as error:
        raise InputError(
            f"{file} is damaged or not complete ({file.stat().st_size:,} bytes: {error}); "
            "download it again."
        ) from None
    tensors = {}
    for name, (dtype, shape) in headers.items():
        if dtype not in _DTYPES:
            raise InputError(
                f"{file}: {name} is stored as {dtype}, which cannot be read. Known: "
                f"{', '.join(_DTYPES)}. Quantised checkpoints have to be converted first."
            )
        tensors[name] = StoredTensor(_DTYPES[dtype], shape, ft.partial(_read, file, name))
    return tensors


def _read(file: Path, name: str) -> np.ndarray:
    """The numbers, copied: a file that stays mapped would count twice in memory."""
    with safe_open(file, "np") as opened:
        return opened.get_tensor(name)


def write_tensors(folder: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes tensors as `model.safetensors`.

    **Raises:** `InputError` for a file that cannot be written.
    """
    # Of a single number `ascontiguousarray` would make an array with an axis.
    contiguous = {name: np.asarray(x, order="C") for name, x in tensors.items()}
    file = folder / _SINGLE
    try:
        save_file(contiguous, file, metadata={"format": "pt"})
    except SafetensorError as error:
        raise InputError(f"{file} could not be written: {error}.") from None


def read_archive(path: Path) -> tuple[dict[str, Any], dict[str, StoredTensor]]:
    """The options and the tensors of an archive of glassllm, of which none is unpacked yet."""
    with _archive(path) as archive:
        members = archive.infolist()
        unpacked = sum(member.file_size for member in members)
        if unpacked > max(_MOST_BYTES, _MOST_TIMES * path.stat().st_size):
            raise InputError(
                f"{path} has {path.stat().st_size:,} bytes and unpacks to {unpacked:,}; no "
                "weights are so regular, so it is refused."
            )
        names = [member.filename for member in members]
        if len(set(names)) < len(names):
            raise InputError(f"{path} holds two arrays of one name; it is damaged.")
        tensors = {name.removesuffix(".npy"): _member(path, archive, name) for name in names}
    if _CONFIG not in tensors:
        raise InputError(
            f"{path} has no {_CONFIG}; of NumPy archives only those of glassllm are known."
        )
    config = tensors.pop(_CONFIG)
    if config.dtype.kind != "U" or config.shape or config.dtype.itemsize > 4 * _MOST_JSON:
        raise InputError(f"{path}: {_CONFIG} is no text; it is damaged.")
    return {**_json_object(str(config.read()), path), "model_type": "glassllm"}, tensors


def write_archive(
    path: Path, options: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> None:
    """Writes an archive that glassllm reads."""
    values = {name: value for name, value in options.items() if name != "model_type"}
    arrays = {_CONFIG: np.array(json.dumps(values)), **tensors}
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path), path.open("wb") as file:  # a path would get the suffix .npz
        np.savez_compressed(file, allow_pickle=False, **arrays)


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """An archive whose errors, while it is open, name the file."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except InputError:
        raise
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError) as e:
        raise InputError(f"{path} is damaged or no NumPy archive: {e}.") from None


def _member(path: Path, archive: zipfile.ZipFile, name: str) -> StoredTensor:
    """An array of the archive; its header says no more than the archive does."""
    with archive.open(name) as member:
        version = np.lib.format.read_magic(member)
        if version != (1, 0):  # later ones are for names of fields, which weights do not have
            raise ValueError(f"version {version} of arrays")
        shape, _, dtype = np.lib.format.read_array_header_1_0(member)
        size = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or size != archive.getinfo(name).file_size - member.tell():
            raise InputError(
                f"{path}: {name} is damaged, or holds objects of Python, which can run code "
                f"and are never read (shape {shape}, {dtype})."
            )
    return StoredTensor(dtype, shape, ft.partial(_unpacked, path, name))


def _unpacked(path: Path, name: str) -> np.ndarray:
    with _archive(path) as archive, archive.open(name) as member:
        return np.lib.format.read_array(member, allow_pickle=False)
