"""Weights of a checkpoint folder in the layout of Hugging Face: safetensors files."""

import functools as ft
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..errors import InputError
from .json_files import MOST_JSON, json_object, read_json
from .transfer import StoredTensor


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


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """All tensors of `model.safetensors`, else of the shards that its index names.

    **Raises:** `InputError` where there is no such file, a shard is missing or outside of the
    folder, or a file is damaged.
    """
    # In this order, as transformers does where there are both.
    if (folder / _SINGLE).is_file():
        return _header(_inside(folder, _SINGLE))
    if not (folder / _INDEX).is_file():
        raise InputError(_no_weights(folder))
    tensors: dict[str, StoredTensor] = {}
    for name in _shards(folder):
        shard = _header(_inside(folder, name))
        twice = tensors.keys() & shard.keys()
        if twice:
            raise InputError(f"{folder}: {min(twice)} is in {name} and in another shard.")
        tensors |= shard
    return tensors


def _shards(folder: Path) -> list[str]:
    """The names of the files in the index."""
    places = read_json(folder / _INDEX).get("weight_map")
    names = set(places.values()) if _is_names(places) else set()
    if not names:
        raise InputError(
            f"{folder / _INDEX} is damaged: its weight_map is no table from tensors to files; "
            "download it again."
        )
    missing = sorted(name for name in names if not (folder / name).is_file())
    if missing:
        raise InputError(
            f"{folder}: {len(missing)} of the {len(names)} shards of {_INDEX} are "
            f"missing: {', '.join(missing[:8])}. Download them again."
        )
    return sorted(names)


def _is_names(places: Any) -> TypeGuard[dict[str, str]]:
    if not isinstance(places, dict):
        return False
    return all(
        isinstance(x, str) and 0 < len(x) < 256 and "\0" not in x for x in places.values()
    )


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


def _header(file: Path) -> dict[str, StoredTensor]:
    """The table at the beginning of a safetensors file: its length in 8 bytes, then JSON. The
    library checks it, but gives no offsets, by which tensors are read one after the other."""
    damaged = f"{file} is damaged or not complete ({file.stat().st_size:,} bytes"
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > MOST_JSON:
            raise InputError(f"{damaged}, with a header of {length:,}); download it again.")
        header = stream.read(length)
    try:
        with safe_open(file, "np"):
            pass
    except SafetensorError as error:
        raise InputError(f"{damaged}: {error}); download it again.") from None
    table = json_object(header, file)
    table.pop("__metadata__", None)
    tensors: dict[str, StoredTensor] = {}
    for name, entry in table.items():
        if entry["dtype"] not in _DTYPES:
            known = ", ".join(_DTYPES)
            raise InputError(
                f"{file}: {name} is stored as {entry['dtype']}, which cannot be read. "
                f"Known: {known}. Quantised checkpoints have to be converted first."
            )
        dtype, shape = _DTYPES[entry["dtype"]], tuple(entry["shape"])
        read = ft.partial(_read, file, dtype, shape, 8 + length + entry["data_offsets"][0])
        tensors[name] = StoredTensor(dtype, shape, read)
    return tensors


def _read(file: Path, dtype: np.dtype, shape: tuple[int, ...], offset: int) -> np.ndarray:
    """The numbers from a byte offset on, copied: a mapped file would count twice in memory."""
    array = np.empty(shape, dtype)
    with file.open("rb") as stream:
        stream.seek(offset)
        if stream.readinto(array.reshape(-1).view(np.uint8).data) != array.nbytes:
            raise InputError(f"{file} became shorter while it was read.")
    return array


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
