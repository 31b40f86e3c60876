"""Arrays of NumPy: an `.npz` archive, an `.npy` file, or a folder of them."""

import contextlib
import functools as ft
import io
import math
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ...errors import InputError
from .stored import StoredArray, check_inside, reading


# The most bytes of a header; NumPy uses a few hundred.
_HEADER = 2**14


def archive(path: Path) -> dict[str, StoredArray]:
    """The arrays of an `.npz` file. Nothing is unpacked to disk."""
    with reading(path), zipfile.ZipFile(path) as zipped:
        files = [x for x in zipped.infolist() if x.filename.endswith(".npy")]
    stored = {}
    for file in files:
        name = file.filename.removesuffix(".npy")
        if ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute():
            raise InputError(f"data.path={path}: {file.filename} leads out of the archive.")
        if name in stored:
            raise InputError(f"data.path={path}: it has two arrays {name}; drop one.")
        opening = ft.partial(_open_member, path, file.filename)
        stored[name] = _stored_array(path, name, opening, file.file_size)
    return stored


def folder(path: Path) -> dict[str, StoredArray]:
    """The arrays of a folder, by the names of their files."""
    return {x.stem: single(check_inside(x, path), path) for x in sorted(path.glob("*.npy"))}


def single(file: Path, path: Path) -> StoredArray:
    """The array of an `.npy` file. Errors name `path`, the file or its folder."""
    if not file.is_file():
        raise InputError(f"data.path={path}: {file.name} is not a file.")
    return _stored_array(path, file.stem, ft.partial(file.open, "rb"), file.stat().st_size)


@contextlib.contextmanager
def _open_member(path: Path, name: str) -> Iterator[Any]:
    with zipfile.ZipFile(path) as opened, opened.open(name) as file:
        yield file


def _stored_array(path: Path, name: str, opening: Callable[[], Any], size: int) -> StoredArray:
    npy = np.lib.format
    headers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    with reading(path), opening() as file:
        # Cuts off a header that unpacks to gigabytes.
        head = io.BytesIO(file.read(_HEADER))
        version = npy.read_magic(head)
        if version not in headers:
            raise ValueError(f"{name} has version {version} of the .npy format")
        shape, _, dtype = headers[version](head, max_header_size=_HEADER)
        expected_size = head.tell() + math.prod(shape) * dtype.itemsize
        if dtype.hasobject:
            raise InputError(
                f"data.path={path}: {name} holds Python objects, which could run code; save an "
                "array of numbers."
            )
        if min(shape, default=0) < 0 or size != expected_size:
            raise ValueError(f"{name} {[*shape]} needs {expected_size} bytes and has {size}")

    def read() -> np.ndarray:
        with reading(path), opening() as file:
            return npy.read_array(file, allow_pickle=False, max_header_size=_HEADER)

    return StoredArray(math.prod(shape), dtype.itemsize, read)
