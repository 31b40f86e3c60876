"""Reads data sets of HDF5 files by h5py."""

import contextlib
import functools as ft
import importlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from .stored import StoredArray, reading


@contextlib.contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    h5py = importlib.import_module("h5py")
    with reading(path), h5py.File(path, "r") as file:
        yield file


def datasets(path: Path) -> dict[str, StoredArray]:
    """All data sets of a file, by name, `group/name`.

    **Raises:** `InputError` for data in another file: external links, external storage and
    virtual data sets.
    """
    h5py = importlib.import_module("h5py")
    stored: dict[str, StoredArray] = {}

    def is_external(name: str, link: Any) -> str | None:
        return name if isinstance(link, h5py.ExternalLink) else None

    def add(name: str, item: Any) -> str | None:
        if not isinstance(item, h5py.Dataset):
            return None
        if item.external or item.is_virtual:
            return name
        # HDF5 unpacks whole chunks, which may be larger than the array.
        numbers = max(item.size or 0, math.prod(item.chunks or (0,)))
        stored[name] = StoredArray(numbers, item.dtype.itemsize, ft.partial(_read, path, name))
        return None

    with open_hdf5(path) as file:
        # A visit ends when a function returns a name.
        external = file.visititems_links(is_external) or file.visititems(add)
    if external:
        raise InputError(
            f"data.path={path}: {external} lies in another file; copy it into this one "
            "(h5repack, or h5py's Group.copy with expand_external=True)."
        )
    return stored


def _read(path: Path, name: str) -> np.ndarray:
    with open_hdf5(path) as file:
        x = np.asarray(file[name][()])
        return x.astype(str) if x.dtype.kind in "OS" else x
