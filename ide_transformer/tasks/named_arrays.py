"""Reads the arrays of a task, and of its parts, by name."""

import difflib
import functools as ft
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, short
from .files import StoredArray, found, parts_in_file, read_arrays


# The likeness above which the name of an array is another one, misspelt.
_LIKE = 0.8
_PREFIXES = ("", "validation_", "test_")


def read_named(
    path: str | Path,
    stored: Mapping[str, StoredArray],
    needed: Sequence[str],
    optional: Sequence[str],
    options: dict[str, Any],
    sources: Collection[str] = (),
) -> tuple[list[str], dict[str, np.ndarray]]:
    """The prefixes of the parts, "" and for example "test_", and the arrays with these names,
    each also after a prefix. A text `grid` becomes an option. `sources`: other arrays that are
    read, of which some of these are made.

    **Raises:** `InputError` for a name that is missing, or nearly right, and for parts on
    different grids.
    """
    every = [f"{prefix}{name}" for prefix in _PREFIXES for name in (*needed, *optional)]
    grids = {
        name: str(stored[name].read())
        for name in (f"{prefix}grid" for prefix in _PREFIXES)
        if name in stored and stored[name].numbers == 1
    }
    _check_names(Path(path), stored, [*every, *grids, "grid"], sources)
    parts = parts_in_file(stored, (*needed, *optional), options)
    prefixes = ["", *(f"{part}_" for part in parts)]
    for prefix in prefixes:
        for name in needed:
            found(path, stored, f"{prefix}{name}")
    if grids and options.get("grid") is None:
        if len(set(grids.values())) > 1:
            several = ", ".join(f"{name} is {grid}" for name, grid in grids.items())
            raise InputError(f"data.path={path}: {several}; all parts need one kind of grid.")
        options["grid"] = next(iter(grids.values()))
    return prefixes, read_arrays(path, stored, every)


def parameter_names(parameters: str | list[str] | None) -> list[str]:
    """The arrays of the parameters of samples."""
    if isinstance(parameters, list):
        return parameters
    return [parameters or "parameters"]


def join_parameters(
    arrays: Mapping[str, np.ndarray], prefix: str, names: Sequence[str]
) -> np.ndarray | None:
    """The parameters of a part, `[samples, k]`, from arrays `[samples]` or `[samples, k]`."""
    columns = [arrays[f"{prefix}{x}"] for x in names if f"{prefix}{x}" in arrays]
    if not columns:
        return None
    return np.concatenate([x.reshape(len(x), -1) for x in columns], axis=1)


def _check_names(
    path: Path,
    stored: Mapping[str, StoredArray],
    names: Sequence[str],
    sources: Collection[str],
) -> None:
    """Prints which arrays of NumPy are not read; other files have further variables.

    **Raises:** `InputError` for an array whose name is nearly one of `names`."""
    missing = [name for name in names if name not in stored]
    axes = {axis for array in stored.values() for axis in array.dimensions}
    read = {f"{prefix}{name}" for prefix in _PREFIXES for name in sources}
    unread = [name for name in stored if name not in {*names, *axes, *read}]
    for name in unread:
        part, _, rest = name.partition("_")
        whole = f"validation_{rest}" if part in ("val", "valid") else name
        if likely := difflib.get_close_matches(whole, missing, n=1, cutoff=_LIKE):
            raise InputError(
                f"data.path={path}: the array {short(name)} is not read; rename it to "
                f"{likely[0]}, or drop it."
            )
    files = path.iterdir() if path.is_dir() else [path]
    if unread and any(file.suffix in (".npz", ".npy") for file in files):
        several = ", ".join(map(short, unread[:20])) + ", …" * (len(unread) > 20)
        _tell_once(f"data.path={path}: not read: {several}")


@ft.cache
def _tell_once(message: str) -> None:
    print(message, file=sys.stderr)
