"""Trajectories in the layouts of The Well and of PDEBench.

Sources: https://polymathic-ai.org/the_well/data_format, and the loaders of
https://github.com/pdebench/PDEBench (Takamoto et al., arXiv 2210.07182).
"""

import functools as ft
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import InputError
from .hdf5 import opened
from .stored import MOST_COORDINATES, StoredArray, joined, points_of


# The order of the channels of PDEBench's own models.
_FIELDS = ("density", "pressure", "Vx", "Vy", "Vz")
_COORDINATES = ("x-coordinate", "y-coordinate", "z-coordinate")


class _Field(NamedTuple):
    """A field of a file: whether it varies with samples, times and each axis in space, and how
    many components each point has."""

    name: str
    varies: tuple[bool, ...]
    components: int
    itemsize: int
    read: Callable[[Any], np.ndarray]


class _Layout(NamedTuple):
    """What a file has. `sizes` has the numbers of samples, times and points along each axis."""

    sizes: tuple[int, ...]
    moving: list[_Field]
    constant: list[_Field]
    points: np.ndarray | None
    # Small arrays: `times`, and if there are any `parameters` and `grid`.
    further: dict[str, np.ndarray]


def layout(files: Sequence[Path]) -> dict[str, StoredArray] | None:
    """The arrays of files of The Well, or of one of PDEBench; `None` for other files.

    - `trajectories`, `[samples, times, *points, channels]`: fields that vary with time.
    - `constant`, `[samples, *points, channels]`: fields that do not.
    - `times`, `[times]`, or `[samples, times]` where they differ.
    - `parameters`, `[samples, parameters]`: scalars that do not vary with time.
    - `points`, `[tokens, dimension]`, if the coordinates have unequal steps; then the fields
      have one axis of tokens.
    - `grid`, for The Well: "periodic" if all boundaries are, else "midpoint".
    - `inputs` and `targets`, `[samples, *points]`, of a steady problem: the constant fields and
      the only state.
    """
    known = []
    for path in files:
        with opened(path) as file:
            one = _well(file) or _pdebench(file)
        if one is None:
            return None
        known.append(one)
    _check_alike(files, known)
    pairs = list(zip(files, known, strict=True))
    moving = [_stored(path, one, one.moving, over_time=True) for path, one in pairs]
    stored = {"trajectories": joined(files[0], moving)}
    if known[0].constant:
        constant = [_stored(path, one, one.constant, over_time=False) for path, one in pairs]
        stored["constant"] = joined(files[0], constant)
        if known[0].sizes[1] == 1:
            stored["inputs"] = _steady(stored["constant"])
            stored["targets"] = _steady(stored["trajectories"])
    small = {name: _one_for_all(name, known) for name in known[0].further}
    if known[0].points is not None:
        small["points"] = known[0].points
    for name, x in small.items():
        stored[name] = StoredArray(x.size, x.itemsize, ft.partial(np.array, x))
    return stored


def _check_alike(files: Sequence[Path], known: Sequence[_Layout]) -> None:
    first = known[0]
    for path, other in zip(files, known, strict=True):
        for mine, own in ((first.moving, other.moving), (first.constant, other.constant)):
            if [x[:3] for x in mine] != [x[:3] for x in own]:
                raise InputError(
                    f"data.path={path}: it has the fields {[x.name for x in own]}, and "
                    f"{files[0].name} has {[x.name for x in mine]}."
                )
        mine, own = (np.empty(0) if x.points is None else x.points for x in (first, other))
        if first.sizes[1:] != other.sizes[1:] or not np.array_equal(mine, own):
            raise InputError(
                f"data.path={path}: it has {[*other.sizes[1:]]} times and points, and "
                f"{files[0].name} has {[*first.sizes[1:]]}."
            )


def _one_for_all(name: str, known: Sequence[_Layout]) -> np.ndarray:
    """A small array of all files: the same in each, or one for each sample."""
    arrays = [x.further[name] for x in known]
    if name == "grid":
        return arrays[0]
    shapes = [(one.sizes[0], *x.shape[-1:]) for one, x in zip(known, arrays, strict=True)]
    every = np.concatenate([np.broadcast_to(*x) for x in zip(arrays, shapes, strict=True)])
    alike = name == "times" and np.array_equal(every, np.broadcast_to(every[:1], every.shape))
    return every[0] if alike else every


def _stored(
    path: Path, known: _Layout, fields: Sequence[_Field], *, over_time: bool
) -> StoredArray:
    """Fields as channels, `[samples, times, *points, channels]`, or without times."""
    samples, steps, *space = known.sizes
    sizes = (samples, steps if over_time else 1, *space)
    ends = [math.prod(space)] if known.points is not None else space
    channels = sum(x.components for x in fields)
    shape = (samples, *[steps] * over_time, *ends, channels)

    def read() -> np.ndarray:
        with opened(path) as file:
            pieces = []
            for field in fields:
                varying = zip(sizes, field.varies, strict=True)
                own = [size if varies else 1 for size, varies in varying]
                x = field.read(file).reshape(*own, field.components)
                pieces.append(np.broadcast_to(x, (*sizes, field.components)))
            return np.concatenate(pieces, axis=-1).reshape(shape)

    names = ("samples", *["times"] * over_time, *["points"] * len(ends), "channels")
    return StoredArray(math.prod(shape), max(x.itemsize for x in fields), read, names)


def _steady(array: StoredArray) -> StoredArray:
    """An array of one time, without its axis of times, and of channels if there is one."""

    def read() -> np.ndarray:
        x = array.read()
        x = x[:, 0] if "times" in array.dimensions else x
        return x[..., 0] if x.shape[-1] == 1 else x

    return array._replace(read=read, dimensions=())


def _well(file: Any) -> _Layout | None:
    groups = [f"t{order}_fields" for order in range(3)]
    if "dimensions" not in file or not any(x in file for x in groups):
        return None
    dimensions = file["dimensions"]
    names = _texts(dimensions.attrs["spatial_dims"])
    axes = [_values(dimensions[x]) for x in names]
    if any(x.ndim != 1 for x in axes):
        raise ValueError("its coordinates differ between samples or times")
    times = _values(dimensions["time"])
    sizes = (int(file.attrs["n_trajectories"]), times.shape[-1], *map(len, axes))
    moving = []
    constant = []
    for order, group in enumerate(groups):
        for name in _members(file, group):
            dataset = file[group][name]
            flags = dataset.attrs
            in_time = bool(flags.get("time_varying", True))
            in_space = tuple(map(bool, flags.get("dim_varying", [True] * len(axes))))
            varies = (bool(flags.get("sample_varying", True)), in_time, *in_space)
            field = _field(f"{group}/{name}", dataset, sizes, varies, order > 0)
            (moving if in_time else constant).append(field)
    if not moving:
        raise ValueError("it has no field that varies with time")
    points = points_of(axes)
    further = {"times": times}
    if points is None:
        further["grid"] = np.array(_boundaries(file))
    scalars = []
    for name in _members(file, "scalars"):
        dataset = file["scalars"][name]
        if not dataset.attrs.get("time_varying", False):
            scalars.append(np.broadcast_to(_values(dataset).reshape(-1), sizes[:1]))
    if scalars:
        further["parameters"] = np.stack(scalars, axis=-1)
    return _Layout(sizes, moving, constant, points, further)


def _boundaries(file: Any) -> str:
    group = file.get("boundary_conditions", {})
    kinds = {_texts([group[x].attrs["bc_type"]])[0].upper() for x in group}
    return "periodic" if kinds == {"PERIODIC"} else "midpoint"


def _members(file: Any, group: str) -> list[str]:
    if group not in file:
        return []
    return _texts(file[group].attrs.get("field_names", list(file[group])))


def _pdebench(file: Any) -> _Layout | None:
    names = list(file)
    groups = [x for x in names if x.isdigit() and "data" in file[x]]
    if groups and len(groups) == len(names):
        return _samples_in_groups(file, groups)
    if "x-coordinate" in names and "tensor" in names:
        moving = ["tensor"]
    elif "x-coordinate" in names and "density" in names:
        moving = [x for x in _FIELDS if x in names]
    elif "velocity" in names and "t" in names:
        moving = [x for x in ("particles", "velocity") if x in names]
    else:
        return None
    axes = [_values(file[x]) for x in _COORDINATES if x in names]
    shape = file[moving[0]].shape
    # Without coordinates the last axis has the components.
    space = tuple(map(len, axes)) or shape[2:-1]
    sizes = (*shape[:2], *space)
    fields = [_field(x, file[x], sizes, (True,) * len(sizes), None) for x in moving]
    constant = []
    further = {}
    for name in {"nu", "force"} & set(names):
        if file[name].ndim > 1:
            varies = (True, False, *[True] * len(space))
            constant.append(_field(name, file[name], sizes, varies, None))
        else:
            further["parameters"] = _values(file[name])[:, None]
    for name in {"t-coordinate", "t"} & set(names):
        times = _values(file[name])
        if times.shape[-1] < sizes[1]:
            raise ValueError(f"{name} has {times.shape[-1]} times for {sizes[1]} states")
        # PDEBench gives one time more than it has states.
        further["times"] = times[..., : sizes[1]]
    return _Layout(sizes, fields, constant, points_of(axes), further)


def _samples_in_groups(file: Any, groups: Sequence[str]) -> _Layout:
    first = file[groups[0]]["data"]
    for group in groups:
        if (own := file[group]["data"].shape) != first.shape:
            raise ValueError(f"{group}/data is {[*own]}, and {groups[0]}/data {[*first.shape]}")
    grid = file[groups[0]].get("grid", {})
    axes = [_values(grid[x]) for x in "xyz" if x in grid]
    space = tuple(map(len, axes)) or first.shape[1:-1]
    sizes = (len(groups), first.shape[0], *space)
    if first.shape[1 : 1 + len(space)] != space or first.ndim > 2 + len(space):
        raise ValueError(f"{groups[0]}/data is {[*first.shape]}, and its grid {[*space]}")
    components = math.prod(first.shape[1 + len(space) :])

    def read(file: Any) -> np.ndarray:
        return np.stack([file[x]["data"][()] for x in groups])

    varies = (True,) * len(sizes)
    field = _Field("data", varies, components, first.dtype.itemsize, read)
    further = {"times": _values(grid["t"])} if "t" in grid else {}
    return _Layout(sizes, [field], [], points_of(axes), further)


def _field(
    name: str,
    dataset: Any,
    sizes: tuple[int, ...],
    varies: tuple[bool, ...],
    components: bool | None,
) -> _Field:
    """A data set whose axes are those of `sizes` that vary, and further ones of `components`;
    `None` where there may be one or none."""
    own = tuple(size for size, varying in zip(sizes, varies, strict=True) if varying)
    further = dataset.shape[len(own) :]
    if components is None:
        components = dataset.ndim == len(own) + 1
    if dataset.shape[: len(own)] != own or bool(further) != components:
        wanted = [*own, "components"] if components else [*own]
        raise ValueError(f"{name} is {[*dataset.shape]}, where its layout has {wanted}")

    def read(file: Any) -> np.ndarray:
        return file[name][()]

    return _Field(name, varies, math.prod(further), dataset.dtype.itemsize, read)


def _values(dataset: Any) -> np.ndarray:
    """Coordinates or scalars."""
    if (
        dataset.size is None
        or dataset.size > MOST_COORDINATES
        or dataset.dtype.kind not in "fiu"
    ):
        raise ValueError(f"{dataset.name} is {dataset.dtype}{[*(dataset.shape or ())]}")
    return np.asarray(dataset[()])


def _texts(values: Any) -> list[str]:
    return [x.decode() if isinstance(x, bytes) else str(x) for x in values]
