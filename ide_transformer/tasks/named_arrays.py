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
# How the names of the arrays of a part begin, also nearly.
_PREFIXES = {
    "validation": "validation_",
    "valid": "validation_",
    "val": "validation_",
    "test": "test_",
}


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
    parts = parts_in_file(stored, (*needed, *optional), options)
    prefixes = ["", *(f"{part}_" for part in parts)]
    for prefix in prefixes:
        for name in needed:
            found(path, stored, f"{prefix}{name}")
    _check_names(Path(path), stored, [*needed, *optional, "grid"], sources)
    grids = {
        name: str(stored[name].read())
        for name in (f"{prefix}grid" for prefix in prefixes)
        if name in stored and stored[name].numbers == 1
    }
    if grids and options.get("grid") is None:
        if len(set(grids.values())) > 1:
            several = ", ".join(f"{name} is {grid}" for name, grid in grids.items())
            raise InputError(f"data.path={path}: {several}; all parts need one kind of grid.")
        options["grid"] = next(iter(grids.values()))
    names = [f"{prefix}{name}" for prefix in prefixes for name in (*needed, *optional)]
    return prefixes, read_arrays(path, stored, names)


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

    **Raises:** `InputError` for an array whose name is nearly one of `names`, also after the
    prefix of a part."""
    axes = {axis for array in stored.values() for axis in array.dimensions}
    unread = []
    for name in stored:
        begins = name.split("_")[0]
        prefix = _PREFIXES.get(begins, "")
        rest = name.removeprefix(f"{begins}_") if prefix else name
        if name in axes or (rest in {*names, *sources} and name == f"{prefix}{rest}"):
            continue
        unread.append(name)
        missing = [x for x in names if f"{prefix}{x}" not in stored]
        if likely := difflib.get_close_matches(rest, missing, n=1, cutoff=_LIKE):
            raise InputError(
                f"data.path={path}: the array {short(name)} is not read; rename it to "
                f"{prefix}{likely[0]}, or drop it."
            )
    files = path.iterdir() if path.is_dir() else [path]
    if unread and any(file.suffix in (".npz", ".npy") for file in files):
        several = ", ".join(map(short, unread[:20])) + ", …" * (len(unread) > 20)
        _tell_once(f"data.path={path}: not read: {several}")


@ft.cache
def _tell_once(message: str) -> None:
    print(message, file=sys.stderr)
