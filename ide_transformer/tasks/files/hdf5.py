"""Data sets of HDF5 files, by h5py."""

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
def opened(path: Path) -> Iterator[Any]:
    h5py = importlib.import_module("h5py")

    with reading(path), h5py.File(path, "r") as file:
        yield file


def datasets(path: Path) -> dict[str, StoredArray]:
    """All data sets of a file, `group/name`.

    **Raises:** `InputError` for what would be read from another file: external links, external
    storage and virtual data sets.
    """
    stored = {}
    with opened(path) as file:
        for name, dataset in _walk(path, file):
            # A chunk is unpacked whole, also where it is larger than the array.
            numbers = max(dataset.size or 0, math.prod(dataset.chunks or (0,)))
            read = ft.partial(_read, path, name)
            stored[name] = StoredArray(numbers, dataset.dtype.itemsize, read)
    return stored


def _walk(path: Path, file: Any) -> Iterator[tuple[str, Any]]:
    h5py = importlib.import_module("h5py")

    groups = [("", file)]
    seen = {h5py.h5o.get_info(file.id).addr}
    while groups:
        prefix, group = groups.pop()
        for key in group:
            name = f"{prefix}{key}"
            link = group.get(key, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise _elsewhere(path, name)
            if not isinstance(link, h5py.HardLink):
                continue  # a second name
            item = group[key]
            if isinstance(item, h5py.Dataset):
                if item.external or item.is_virtual:
                    raise _elsewhere(path, name)
                yield name, item
            elif isinstance(item, h5py.Group):
                address = h5py.h5o.get_info(item.id).addr
                if address in seen:
                    raise InputError(f"data.path={path}: the group {name} has two names.")
                seen.add(address)
                groups.append((f"{name}/", item))


def _elsewhere(path: Path, name: str) -> InputError:
    return InputError(
        f"data.path={path}: {name} lies in another file; copy it into this one (h5repack, or "
        "h5py's Group.copy with expand_external=True)."
    )


def _read(path: Path, name: str) -> np.ndarray:
    with opened(path) as file:
        x = np.asarray(file[name][()])
        return x.astype(str) if x.dtype.kind in "OS" else x
