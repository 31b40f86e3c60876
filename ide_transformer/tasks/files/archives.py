"""Arrays of NumPy: an `.npz` archive, an `.npy` file, or a folder of them."""

import contextlib
import functools as ft
import math
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from .stored import StoredArray, reading


def archive(path: Path) -> dict[str, StoredArray]:
    """The arrays of an `.npz` file. Nothing is unpacked to disk."""
    with reading(path), zipfile.ZipFile(path) as zipped:
        files = [x for x in zipped.namelist() if x.endswith(".npy")]
    stored = {}
    for file in files:
        name = file.removesuffix(".npy")
        stored[name] = _stored_array(path, name, ft.partial(_open_member, path, file))
    return stored


def folder(path: Path) -> dict[str, StoredArray]:
    """The arrays of a folder, by the names of their files."""
    return {x.stem: single(x, path) for x in sorted(path.glob("*.npy"))}


def single(file: Path, path: Path) -> StoredArray:
    """The array of an `.npy` file. Errors name `path`, the file or its folder."""
    return _stored_array(path, file.stem, ft.partial(file.open, "rb"))


@contextlib.contextmanager
def _open_member(path: Path, name: str) -> Iterator[Any]:
    with zipfile.ZipFile(path) as opened, opened.open(name) as file:
        yield file


def _stored_array(path: Path, name: str, opening: Callable[[], Any]) -> StoredArray:
    npy = np.lib.format
    headers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    with reading(path), opening() as file:
        shape, _, dtype = headers[npy.read_magic(file)](file)
    if dtype.hasobject:
        raise InputError(
            f"data.path={path}: {name} holds Python objects, which could run code; save an "
            "array of numbers."
        )

    def read() -> np.ndarray:
        with reading(path), opening() as file:
            return npy.read_array(file, allow_pickle=False)

    return StoredArray(math.prod(shape), dtype.itemsize, read)
