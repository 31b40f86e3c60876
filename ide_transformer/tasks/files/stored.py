"""Arrays in files, whose sizes are known before they are read."""

import contextlib
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ...errors import InputError, did_you_mean, printable, short, shown
from ...memory import check_bytes


# The arrays that a task reads, by role: the name of one, or of several that become channels.
Roles: TypeAlias = Mapping[str, str | Sequence[str]]
# The prefix of the arrays of a held-out part, by its usual spellings.
PREFIXES = {
    "validation": "validation_",
    "valid": "validation_",
    "val": "validation_",
    "test": "test_",
}
KINDS = (
    "pass an .npz file, a folder of .npy files, a .parquet or .csv table, or fields as .nc, "
    ".h5 or .zarr. In Python, np.savez('data.npz', inputs=…, targets=…) saves arrays"
)


class StoredArray(NamedTuple):
    """An array in a file.

    - `numbers`, `itemsize`: how many numbers it has, and the bytes of each.
    - `read`: reads it.
    - `dimensions`: the names of its axes, if the file has them.
    """

    numbers: int
    itemsize: int
    read: Callable[[], np.ndarray]
    dimensions: tuple[str, ...] = ()


def array_names(roles: Roles) -> list[str]:
    """The names of all arrays of these roles."""
    return [name for x in roles.values() for name in ([x] if isinstance(x, str) else x)]


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns errors of libraries that cannot read a file into an `InputError` of one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # the libraries raise many kinds
        message = printable(" ".join(str(error).split()))[:200] or type(error).__name__
        raise InputError(
            f"data.path={path}: it is damaged, or of an unknown kind ({message}); {KINDS}."
        ) from None


def find_array(path: str | Path, stored: Mapping[str, StoredArray], name: str) -> StoredArray:
    """The array with a name. **Raises:** `InputError` if there is none."""
    if name not in stored:
        names = ", ".join(list(stored)[:20]) + (", …" if len(stored) > 20 else "")
        task = ""
        if name in ("inputs", "targets") and "trajectories" in stored:
            task = " or data.name=trajectories"
        elif name == "trajectories" and {"inputs", "targets"} <= stored.keys():
            task = " or data.name=arrays"
        raise InputError(
            f"data.path={path}: there is no array {name}, only {names or 'other files'}."
            f"{did_you_mean(name, stored)} Set data.options.inputs (and .targets){task}."
        )
    return stored[name]


def parts_in_file(
    stored: Mapping[str, StoredArray], names: Sequence[str], options: dict[str, Any]
) -> list[str]:
    """The held-out parts for which a file has arrays, such as `test_inputs`. Its validation
    part replaces `validation=1` in `options`.

    **Raises:** `InputError` for another fraction of a part that the file has."""
    held_out = ("validation", "test")
    parts = [x for x in held_out if any(f"{x}_{name}" in stored for name in names)]
    if "validation" in parts and options.get("validation") == 1:
        del options["validation"]
    for part in parts:
        if options.get(part):
            raise InputError(
                f"data.{part}={options[part]}: the file has {part} samples of its own; set "
                f"data.{part}=null, or drop its arrays."
            )
    return parts


def read_arrays(
    path: str | Path, stored: Mapping[str, StoredArray], names: Iterable[str]
) -> dict[str, np.ndarray]:
    """Reads the arrays with these names, if they exist.

    **Raises:** `InputError` if they do not fit into memory."""
    arrays = {name: stored[name] for name in names if name in stored}
    # An array exists as stored, in single precision, and once more in parts.
    check_bytes(f"data.path={path}", sum(x.numbers * (x.itemsize + 8) for x in arrays.values()))
    return {name: x.read() for name, x in arrays.items()}


def number_labels(
    path: str | Path, arrays: Mapping[str, np.ndarray], labels: Sequence[str] | None
) -> tuple[dict[str, np.ndarray], list[str] | None]:
    """Replaces texts in arrays by the indices of their labels, and returns the labels; `None`
    if all arrays are numbers. By default labels are all texts, sorted, and are printed.

    **Raises:** `InputError` for a text that is not a label.
    """
    texts = {name: x for name, x in arrays.items() if x.dtype.kind == "U"}
    if not texts:
        return dict(arrays), None
    unique = np.unique(np.concatenate([x.ravel() for x in texts.values()]))
    names: list[str] = unique.tolist() if labels is None else [*labels]
    if labels is None:
        several = ", ".join(f"{i} {short(x)}" for i, x in enumerate(names[:20]))
        more = f", … {len(names) - 1}" if len(names) > 20 else ""
        print(f"{path}: classes {several}{more}", file=sys.stderr)
    indices = {name: i for i, name in enumerate(names)}
    unknown = [x for x in unique.tolist() if x not in indices]
    if unknown:
        several = ", ".join(map(shown, names[:20])) + (", …" if len(names) > 20 else "")
        raise InputError(
            f"data.path={path}: {shown(unknown[0])} is not one of the labels [{several}]."
        )
    classes = np.array([indices[x] for x in unique.tolist()], np.int32)
    numbered = {name: classes[np.searchsorted(unique, x)] for name, x in texts.items()}
    return dict(arrays) | numbered, names


def stack_channels(path: Path, channels: Mapping[str, StoredArray]) -> StoredArray:
    """Stacks arrays of one shape along a new last axis, the channels."""
    arrays = list(channels.values())
    if len({x.dimensions for x in arrays}) > 1 or len({x.numbers for x in arrays}) > 1:
        sizes = ", ".join(
            f"{name} {x.numbers} {[*x.dimensions]}" for name, x in channels.items()
        )
        raise InputError(
            f"data.path={path}: channels must be arrays of one shape, got {sizes}."
        )

    def read() -> np.ndarray:
        with reading(path):
            return np.stack([x.read() for x in arrays], axis=-1)

    dimensions = (*arrays[0].dimensions, "channels") if arrays[0].dimensions else ()
    size = max(x.itemsize for x in arrays)
    return StoredArray(sum(x.numbers for x in arrays), size, read, dimensions)


def concatenate(path: Path, arrays: Sequence[StoredArray]) -> StoredArray:
    """Joins the samples of several files."""
    if len(arrays) == 1:
        return arrays[0]

    def read() -> np.ndarray:
        with reading(path):
            return np.concatenate([x.read() for x in arrays])

    size = max(x.itemsize for x in arrays)
    return StoredArray(sum(x.numbers for x in arrays), size, read, arrays[0].dimensions)


def points_of(axes: Sequence[np.ndarray]) -> np.ndarray | None:
    """The points `[tokens, dimension]` of the product of axes, scaled to [0, 1]; `None` if all
    axes have equal steps. Coordinates of an axis are `[size]` or `[size, dimension]`."""
    columns = [np.asarray(x, float).reshape(len(x), -1) for x in axes]
    if all(x.shape[1] == 1 and _equal_steps(x[:, 0]) for x in columns):
        return None
    sizes = [len(x) for x in columns]
    dimension = sum(x.shape[1] for x in columns)
    check_bytes(f"{[*sizes]} points", 8 * dimension * math.prod(sizes))

    def scale(x: np.ndarray) -> np.ndarray:
        extent = np.ptp(x, axis=0)
        return (x - x.min(0)) / np.where(extent > 0, extent, 1)

    indices = np.indices(sizes).reshape(len(sizes), -1)
    coordinates = [scale(x)[index] for x, index in zip(columns, indices, strict=True)]
    return np.concatenate(coordinates, axis=1)


def _equal_steps(x: np.ndarray) -> bool:
    """Whether coordinates have equal steps, up to rounding in single precision."""
    steps = np.diff(x)
    return len(x) < 3 or bool(np.ptp(steps) <= 1e-3 * abs(steps.mean()) + 1e-6 * np.ptp(x))
