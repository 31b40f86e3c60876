"""Weights of a checkpoint folder in the layout of Hugging Face: safetensors files."""

import functools as ft
import json
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from ..errors import InputError
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
    """All tensors of `model.safetensors`, or of the shards that its index names.

    **Raises:** `InputError` where there is no such file, a shard is missing, or a file is
    damaged.
    """
    if (folder / _INDEX).is_file():
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        shards = sorted(set(index["weight_map"].values()))
        missing = [name for name in shards if not (folder / name).is_file()]
        if missing:
            raise InputError(
                f"{folder}: {len(missing)} of the {len(shards)} shards of {_INDEX} are "
                f"missing: {', '.join(missing)}. Download them again."
            )
    elif (folder / _SINGLE).is_file():
        shards = [_SINGLE]
    else:
        raise InputError(_no_weights(folder))
    tensors: dict[str, StoredTensor] = {}
    for name in shards:
        tensors |= _header(folder / name)
    return tensors


def write_tensors(folder: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes tensors as `model.safetensors`."""
    contiguous = {name: np.ascontiguousarray(x) for name, x in tensors.items()}
    save_file(contiguous, folder / _SINGLE, metadata={"format": "pt"})


def _header(file: Path) -> dict[str, StoredTensor]:
    """The table at the beginning of a safetensors file: its length in 8 bytes, then JSON."""
    size = file.stat().st_size
    damaged = f"{file} is damaged or not complete ({size:,} bytes); download it again."
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > size - 8:
            raise InputError(damaged)
        try:
            table = json.loads(stream.read(length))
        except ValueError:
            raise InputError(damaged) from None
    table.pop("__metadata__", None)
    tensors: dict[str, StoredTensor] = {}
    for name, entry in table.items():
        start, end = entry["data_offsets"]
        if entry["dtype"] not in _DTYPES:
            known = ", ".join(_DTYPES)
            raise InputError(
                f"{file}: {name} is stored as {entry['dtype']}, which cannot be read. "
                f"Known: {known}. Quantised checkpoints have to be converted first."
            )
        dtype, shape = _DTYPES[entry["dtype"]], tuple(entry["shape"])
        complete = 8 + length + end <= size
        if not complete or end - start != dtype.itemsize * int(np.prod(shape, dtype=int)):
            raise InputError(damaged)
        read = ft.partial(_read, file, dtype, shape, 8 + length + start)
        tensors[name] = StoredTensor(dtype, shape, read)
    return tensors


def _read(file: Path, dtype: np.dtype, shape: tuple[int, ...], offset: int) -> np.ndarray:
    """The numbers from a byte offset on, copied: a mapped file would count twice in memory."""
    array = np.empty(shape, dtype)
    with file.open("rb") as stream:
        stream.seek(offset)
        stream.readinto(array.reshape(-1).view(np.uint8).data)
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
