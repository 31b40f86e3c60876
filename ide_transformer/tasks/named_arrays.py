"""Reads the arrays of a task and of its parts by name."""

import difflib
import functools as ft
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, short
from .files import PREFIXES, StoredArray, find_array, parts_in_file, read_arrays
from .function_data import mask_padding


# The similarity from which a name counts as misspelt.
_SIMILAR = 0.8


def read_named_parts(
    path: str | Path,
    stored: Mapping[str, StoredArray],
    names: Mapping[str, str],
    optional: Collection[str],
    parameters: str | list[str] | None,
    options: dict[str, Any],
    sources: Collection[str],
) -> dict[str, dict[str, Any]]:
    """Reads the arrays of each part, by role; `None` for a missing optional array. An array
    `grid` sets the option of its name.

    **Arguments:**

    - `names`: of the arrays, by role. Held-out parts add a prefix, as in `test_inputs`.
    - `optional`: the roles that may be missing.
    - `parameters`: the names of arrays `[samples]` or `[samples, k]` to join; default:
      "parameters", if a part has them.
    - `sources`: the names of other arrays that are in use.

    **Raises:** `InputError` for a name that is missing or misspelt, and for parts on different
    grids.
    """
    numbers = parameter_names(parameters)
    has_parameters = parameters is not None or any(
        f"{prefix}parameters" in stored for prefix in ("", *PREFIXES.values())
    )
    required = [name for role, name in names.items() if role not in optional]
    if has_parameters:
        required += numbers
    all_names = [*required, *(names[role] for role in optional)]
    held_out = parts_in_file(stored, all_names, options)
    prefixes = {"training": "", **{part: f"{part}_" for part in held_out}}
    for prefix in prefixes.values():
        for name in required:
            find_array(path, stored, f"{prefix}{name}")
    _check_names(Path(path), stored, [*all_names, *numbers, "grid"], sources)
    grids = {
        name: str(stored[name].read())
        for name in (f"{prefix}grid" for prefix in prefixes.values())
        if name in stored and stored[name].numbers == 1
    }
    if grids and options.get("grid") is None:
        if len(set(grids.values())) > 1:
            several = ", ".join(f"{name} is {grid}" for name, grid in grids.items())
            raise InputError(f"data.path={path}: {several}; use one grid for all parts.")
        options["grid"] = next(iter(grids.values()))
    arrays = read_arrays(
        path, stored, [f"{prefix}{name}" for prefix in prefixes.values() for name in all_names]
    )
    parts: dict[str, dict[str, Any]] = {}
    for part, prefix in prefixes.items():
        parts[part] = {role: arrays.get(f"{prefix}{name}") for role, name in names.items()}
        if has_parameters:
            columns = [arrays[f"{prefix}{name}"] for name in numbers]
            columns = [x.reshape(len(x), -1) for x in columns]
            parts[part]["parameters"] = np.concatenate(columns, axis=1)
        mask_padding(parts[part])
    return parts


def parameter_names(parameters: str | list[str] | None) -> list[str]:
    """The names of the arrays with parameters."""
    return parameters if isinstance(parameters, list) else [parameters or "parameters"]


def _check_names(
    path: Path,
    stored: Mapping[str, StoredArray],
    names: Sequence[str],
    sources: Collection[str],
) -> None:
    """Prints which arrays of NumPy files are not read; other files usually have some.

    **Raises:** `InputError` for an array whose name is misspelt, or the prefix of its part.
    """
    axes = {axis for array in stored.values() for axis in array.dimensions}
    unread = []
    for name in stored:
        first_word = name.split("_")[0]
        prefix = PREFIXES.get(first_word, "")
        rest = name.removeprefix(f"{first_word}_") if prefix else name
        if name in axes or (rest in {*names, *sources} and name == f"{prefix}{rest}"):
            continue
        unread.append(name)
        missing = [x for x in names if f"{prefix}{x}" not in stored]
        if likely := difflib.get_close_matches(rest, missing, n=1, cutoff=_SIMILAR):
            raise InputError(
                f"data.path={path}: the array {short(name)} is not read; rename it to "
                f"{prefix}{likely[0]}, or drop it."
            )
    files = path.iterdir() if path.is_dir() else [path]
    if unread and any(file.suffix in (".npz", ".npy") for file in files):
        several = ", ".join(map(short, unread[:20])) + (", …" if len(unread) > 20 else "")
        _print_once(f"data.path={path}: not read: {several}")


@ft.cache
def _print_once(message: str) -> None:
    print(message, file=sys.stderr)
