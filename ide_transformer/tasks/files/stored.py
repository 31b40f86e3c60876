"""Arrays in files: their sizes first, their numbers when they are asked for."""

import contextlib
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ...errors import InputError, did_you_mean, printable, short, shown
from ...memory import check_bytes


# What a task reads, by its own name: an array, or several that become its last axis.
Roles: TypeAlias = Mapping[str, str | Sequence[str]]


def array_names(roles: Roles) -> list[str]:
    """The names of all arrays in these roles."""
    return [name for x in roles.values() for name in ([x] if isinstance(x, str) else x)]


# More coordinates than any axis has.
MOST_COORDINATES = 2**24


class StoredArray(NamedTuple):
    """An array in a file: how many numbers, the bytes of each, what reads them, and the names
    of its axes if the file has them."""

    numbers: int
    itemsize: int
    read: Callable[[], np.ndarray]
    dimensions: tuple[str, ...] = ()


KINDS = (
    "give an .npz file, a folder of .npy files, a .parquet or .csv table, or fields as .nc, "
    ".h5 or .zarr. From arrays in Python np.savez('data.npz', inputs=…, targets=…) writes one"
)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what the libraries raise for a file they cannot read into one line."""
    try:
        yield
    except InputError:
        raise
    except PermissionError as error:
        raise InputError(f"data.path={path}: it cannot be read ({error.strerror}).") from None
    except Exception as error:  # zipfile, NumPy, pyarrow, h5py, xarray and zarr have many
        said = printable(" ".join(str(error).split()))[:200] or type(error).__name__
        raise InputError(
            f"data.path={path}: it is damaged, or of an unknown kind ({said}); {KINDS}."
        ) from None


def inside(path: Path, folder: Path) -> Path:
    """A file of a folder. **Raises:** `InputError` for a link that leaves the folder."""
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"data.path={folder}: {path.name} is a link out of it; copy the file.")
    return path


def found(path: str | Path, stored: Mapping[str, StoredArray], name: str) -> StoredArray:
    """The array of this name. **Raises:** `InputError` where there is none."""
    if name not in stored:
        known = ", ".join(list(stored)[:20]) + (", …" if len(stored) > 20 else "")
        raise InputError(
            f"data.path={path}: there is no array {name}, only {known}."
            f"{did_you_mean(name, stored)} Name others by data.options.inputs and .targets."
        )
    return stored[name]


def parts_in_file(
    stored: Mapping[str, StoredArray], names: Sequence[str], options: dict[str, Any]
) -> list[str]:
    """The held-out parts of which a file has arrays, such as `test_inputs`. They take the place
    of `validation=1` in `options`. **Raises:** `InputError` for other fractions beside them."""
    held_out = ("validation", "test")
    parts = [x for x in held_out if any(f"{x}_{name}" in stored for name in names)]
    if "validation" in parts and options.get("validation") == 1:
        del options["validation"]
    for part in parts:
        if options.get(part):
            raise InputError(
                f"data.{part}={options[part]}: the file has {part} samples of its own; write "
                f"data.{part}=null, or drop its arrays."
            )
    return parts


def read_arrays(
    path: str | Path, stored: Mapping[str, StoredArray], names: Iterable[str]
) -> dict[str, np.ndarray]:
    """The arrays with these names, as far as there are any. **Raises:** `InputError` if they
    do not fit into memory."""
    chosen = {name: stored[name] for name in names if name in stored}
    # As stored, in single precision, and divided into parts.
    needed = sum(x.numbers * (x.itemsize + 4 + 4) for x in chosen.values())
    check_bytes(f"data.path={path}", needed)
    return {name: x.read() for name, x in chosen.items()}


def numbered(
    path: str | Path, arrays: Mapping[str, np.ndarray], labels: Sequence[str] | None
) -> tuple[dict[str, np.ndarray], list[str] | None]:
    """Texts of several arrays as the places of their labels, by default of all in sorted order,
    which is printed; and the labels. Arrays of numbers stay as they are and have no labels.

    **Raises:** `InputError` for a text that is none of the labels.
    """
    texts = {name: x for name, x in arrays.items() if x.dtype.kind == "U"}
    if not texts:
        return dict(arrays), None
    every = np.unique(np.concatenate([x.ravel() for x in texts.values()]))
    known = every.tolist() if labels is None else [*labels]
    if labels is None:
        several = ", ".join(f"{i} {short(x)}" for i, x in enumerate(known[:20]))
        more = f", … {len(known) - 1}" if len(known) > 20 else ""
        print(f"{path}: classes {several}{more}", file=sys.stderr)
    if other := [x for x in every.tolist() if x not in known]:
        several = ", ".join(map(shown, known[:20])) + ", …" * (len(known) > 20)
        raise InputError(
            f"data.path={path}: {shown(other[0])} is none of the labels [{several}]."
        )
    place = {label: i for i, label in enumerate(known)}
    found = np.array([place[x] for x in every.tolist()], np.int32)
    classes = {name: found[np.searchsorted(every, x)] for name, x in texts.items()}
    return dict(arrays) | classes, known


def stacked(path: Path, parts: Mapping[str, StoredArray]) -> StoredArray:
    """Arrays of one shape as channels, the last axis."""
    arrays = list(parts.values())
    if len({x.dimensions for x in arrays}) > 1 or len({x.numbers for x in arrays}) > 1:
        sizes = ", ".join(f"{name} {x.numbers} {[*x.dimensions]}" for name, x in parts.items())
        raise InputError(f"data.path={path}: channels need arrays of one shape, not {sizes}.")

    def read() -> np.ndarray:
        with reading(path):
            return np.stack([x.read() for x in arrays], axis=-1)

    dimensions = (*arrays[0].dimensions, "channels") if arrays[0].dimensions else ()
    size = max(x.itemsize for x in arrays)
    return StoredArray(sum(x.numbers for x in arrays), size, read, dimensions)


def joined(path: Path, arrays: Sequence[StoredArray]) -> StoredArray:
    """The samples of several files, one after the other."""
    if len(arrays) == 1:
        return arrays[0]

    def read() -> np.ndarray:
        with reading(path):
            return np.concatenate([x.read() for x in arrays])

    size = max(x.itemsize for x in arrays)
    return StoredArray(sum(x.numbers for x in arrays), size, read, arrays[0].dimensions)


def points_of(axes: Sequence[np.ndarray]) -> np.ndarray | None:
    """Points `[tokens, dimension]` in [0, 1] of the product of axes, each with coordinates
    `[size]` or `[size, dimension]`; `None` for a grid whose axes have equal steps."""
    columns = [np.asarray(x, float).reshape(len(x), -1) for x in axes]
    if all(x.shape[1] == 1 and _equal_steps(x[:, 0]) for x in columns):
        return None
    sizes = [len(x) for x in columns]
    dimension = sum(x.shape[1] for x in columns)
    check_bytes(f"{[*sizes]} points", 8 * dimension * math.prod(sizes))

    def scaled(x: np.ndarray) -> np.ndarray:
        extent = np.ptp(x, axis=0)
        return (x - x.min(0)) / np.where(extent > 0, extent, 1)

    places = np.indices(sizes).reshape(len(sizes), -1)
    found = [scaled(x)[place] for x, place in zip(columns, places, strict=True)]
    return np.concatenate(found, axis=1)


def _equal_steps(x: np.ndarray) -> bool:
    """Whether coordinates have equal steps, to the rounding of single precision."""
    steps = np.diff(x)
    return len(x) < 3 or bool(np.ptp(steps) <= 1e-3 * abs(steps.mean()) + 1e-6 * np.ptp(x))
