"""NumPy archives, the files of the package glassllm."""

import functools as ft
import json
import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, naming
from .json_files import MOST_JSON, json_object
from .options import Options
from .transfer import StoredTensor


_CONFIG = "__config__"
# Trained weights hardly shrink. What unpacks to more than this, and to more than so many times
# the archive, holds none.
_MOST_BYTES = 64 * 2**20
_MOST_TIMES = 20


def read_archive(path: Path) -> tuple[Options, Mapping[str, StoredTensor]]:
    """The options and the tensors of an archive, of which none is unpacked yet.

    **Raises:** `InputError` where it is damaged or of another kind, holds objects of Python,
    or is very much larger unpacked.
    """
    with _Archive(path) as archive:
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
        tensors = {name.removesuffix(".npy"): _tensor(path, archive, name) for name in names}
    if _CONFIG not in tensors:
        raise InputError(
            f"{path} has no {_CONFIG}; of NumPy archives only those of glassllm are known."
        )
    config = tensors.pop(_CONFIG)
    if config.dtype.kind != "U" or config.shape or config.dtype.itemsize > 4 * MOST_JSON:
        raise InputError(f"{path}: {_CONFIG} is no text; it is damaged.")
    options = json_object(str(config.read()), path)
    return Options({**options, "model_type": "glassllm"}, path), tensors


def write_archive(path: Path, options: Options, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes an archive that glassllm reads."""
    values = {name: x for name, x in options.values.items() if name != "model_type"}
    arrays = {_CONFIG: np.array(json.dumps(values)), **tensors}
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path), path.open("wb") as file:  # a path would get the suffix .npz
        np.savez_compressed(file, allow_pickle=False, **arrays)


class _Archive(zipfile.ZipFile):
    """An archive whose errors, while it is open, name the file."""

    def __init__(self, path: Path):
        self._path = path
        try:
            super().__init__(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise self._damaged(error) from None

    def __exit__(self, kind, error, traceback):
        super().__exit__(kind, error, traceback)
        wrong = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError)
        if isinstance(error, wrong) and not isinstance(error, InputError):
            raise self._damaged(error) from None

    def _damaged(self, error: BaseException) -> InputError:
        return InputError(f"{self._path} is damaged or no NumPy archive: {error}.")


def _tensor(path: Path, archive: zipfile.ZipFile, name: str) -> StoredTensor:
    """An array of the archive; its header says no more than the archive does."""
    with archive.open(name) as member:
        shape, dtype = _npy_header(member)
        size = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or size != archive.getinfo(name).file_size - member.tell():
            raise InputError(
                f"{path}: {name} is damaged, or holds objects of Python, which can run code "
                f"and are never read (shape {shape}, {dtype})."
            )
    return StoredTensor(dtype, shape, ft.partial(_read, path, name))


def _npy_header(member: Any) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(member)
    # Later versions are for names of fields, which weights do not have.
    read = {(1, 0): "read_array_header_1_0", (2, 0): "read_array_header_2_0"}.get(version)
    if read is None:
        raise ValueError(f"version {version} of arrays")
    shape, _, dtype = getattr(np.lib.format, read)(member)
    return shape, dtype


def _read(path: Path, name: str) -> np.ndarray:
    with _Archive(path) as archive, archive.open(name) as member:
        return np.lib.format.read_array(member, allow_pickle=False)
