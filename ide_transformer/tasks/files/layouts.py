"""Reads trajectories in the layouts of The Well and of PDEBench.

Sources: https://polymathic-ai.org/the_well/data_format, and the loaders of
https://github.com/pdebench/PDEBench (Takamoto et al., arXiv 2210.07182).
"""

import functools as ft
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import InputError
from .hdf5 import open_hdf5
from .stored import StoredArray, concatenate, points_of


class _Field(NamedTuple):
    """A field of a file.

    - `datasets`: the name of its data set, or one for each sample.
    - `sizes`: along samples, times and the axes in space; 1 where it does not vary.
    - `components`: of each point.
    """

    datasets: tuple[str, ...]
    sizes: tuple[int, ...]
    components: int
    itemsize: int


class _Layout(NamedTuple):
    """The content of a file. `sizes`: the numbers of samples, times and points along each axis.
    `moving`, `constant`: fields that vary with time, or do not. `small`: the arrays `times`,
    `parameters` and `grid`, if the file has them."""

    sizes: tuple[int, ...]
    moving: list[_Field]
    constant: list[_Field]
    points: np.ndarray | None
    small: dict[str, np.ndarray]


def layout(files: Sequence[Path]) -> dict[str, StoredArray] | None:
    """The arrays of files of The Well, or of a file of PDEBench; `None` for other files.

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
    layouts: dict[Path, _Layout] = {}
    for path in files:
        with open_hdf5(path) as file:
            content = _read_well(file) or _read_pdebench(file)
        if content is None:
            return None
        layouts[path] = content
    _check_alike(layouts)
    first = layouts[files[0]]
    moving = [_stored_array(path, x, x.moving, over_time=True) for path, x in layouts.items()]
    stored = {"trajectories": concatenate(files[0], moving)}
    if first.constant:
        constant = [
            _stored_array(path, x, x.constant, over_time=False) for path, x in layouts.items()
        ]
        stored["constant"] = concatenate(files[0], constant)
        if first.sizes[1] == 1:
            stored["inputs"] = _steady(stored["constant"])
            stored["targets"] = _steady(stored["trajectories"])
    small = {name: _of_all_samples(name, [*layouts.values()]) for name in first.small}
    if first.points is not None:
        small["points"] = first.points
    for name, x in small.items():
        stored[name] = StoredArray(x.size, x.itemsize, ft.partial(np.array, x))
    return stored


def _check_alike(layouts: Mapping[Path, _Layout]) -> None:
    (first_path, first), *further = layouts.items()
    for path, other in further:
        points = [np.empty(0) if x.points is None else x.points for x in (first, other)]
        sizes = [[_channels(x), [*x.sizes[1:]]] for x in (first, other)]
        if sizes[0] != sizes[1] or not np.array_equal(points[0], points[1]):
            raise InputError(
                f"data.path={path}: its fields, times and points are {sizes[1]}, and "
                f"{first_path.name} has {sizes[0]}, or other coordinates; use files with equal "
                "ones."
            )


def _channels(layout: _Layout) -> list[str]:
    """Each field as a text, with the number of its components and whether it is constant."""
    return [
        f"{x.datasets[0]} [{x.components}]" + (", constant" if x in layout.constant else "")
        for x in layout.moving + layout.constant
    ]


def _of_all_samples(name: str, layouts: Sequence[_Layout]) -> np.ndarray:
    """A small array of all files, one row if it is equal for all, else a row per sample."""
    arrays = [x.small[name] for x in layouts]
    if name == "grid":
        return arrays[0]
    rows = [
        np.broadcast_to(array, (layout.sizes[0], array.shape[-1]))
        for layout, array in zip(layouts, arrays, strict=True)
    ]
    all_rows = np.concatenate(rows)
    return all_rows[0] if name == "times" and (all_rows == all_rows[0]).all() else all_rows


def _stored_array(
    path: Path, layout: _Layout, fields: Sequence[_Field], *, over_time: bool
) -> StoredArray:
    """Fields as channels, `[samples, times, *points, channels]`, or without times."""
    samples, steps, *space = layout.sizes
    sizes = (samples, steps if over_time else 1, *space)
    ends = [math.prod(space)] if layout.points is not None else space
    times = {"times": steps} if over_time else {}
    shape = (samples, *times.values(), *ends, sum(x.components for x in fields))

    def read() -> np.ndarray:
        with open_hdf5(path) as file:
            pieces = []
            for field in fields:
                x = np.stack([file[name][()] for name in field.datasets])
                x = x.reshape(*field.sizes, field.components)
                pieces.append(np.broadcast_to(x, (*sizes, field.components)))
            return np.concatenate(pieces, axis=-1).reshape(shape)

    names = ("samples", *times, *["points"] * len(ends), "channels")
    return StoredArray(math.prod(shape), max(x.itemsize for x in fields), read, names)


def _steady(array: StoredArray) -> StoredArray:
    """Drops the axis of times, and the axis of channels if there is one channel."""

    def read() -> np.ndarray:
        x = array.read()
        x = x[:, 0] if "times" in array.dimensions else x
        return x[..., 0] if x.shape[-1] == 1 else x

    return array._replace(read=read, dimensions=())


def _read_well(file: Any) -> _Layout | None:
    groups = [f"t{order}_fields" for order in range(3)]
    if "dimensions" not in file or not any(x in file for x in groups):
        return None
    dimensions = file["dimensions"]
    axes = [_values(dimensions[x]) for x in _texts(dimensions.attrs["spatial_dims"])]
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
            in_space = flags.get("dim_varying", [True] * len(axes))
            varies = (flags.get("sample_varying", True), in_time, *in_space)
            field = _field(f"{group}/{name}", dataset, sizes, varies, order > 0)
            (moving if in_time else constant).append(field)
    if not moving:
        return None
    points = points_of(axes)
    small = {"times": times}
    if points is None:
        walls = file.get("boundary_conditions", {})
        kinds = {x.upper() for y in walls for x in _texts([walls[y].attrs["bc_type"]])}
        small["grid"] = np.array("periodic" if kinds == {"PERIODIC"} else "midpoint")
    scalars = [file["scalars"][name] for name in _members(file, "scalars")]
    scalars = [_values(x).ravel() for x in scalars if not x.attrs.get("time_varying", False)]
    if scalars:
        rows = [np.broadcast_to(x, sizes[:1]) for x in scalars]
        small["parameters"] = np.stack(rows, axis=-1)
    return _Layout(sizes, moving, constant, points, small)


def _members(file: Any, group: str) -> list[str]:
    if group not in file:
        return []
    return _texts(file[group].attrs.get("field_names", list(file[group])))


def _read_pdebench(file: Any) -> _Layout | None:
    samples = [x for x in file if x.isdigit() and "data" in file[x]]
    if samples and len(samples) == len(file):
        return _read_samples(file, samples)
    if "x-coordinate" in file and "tensor" in file:
        names = ["tensor"]
    elif "x-coordinate" in file and "density" in file:
        # The order of the channels of PDEBench's own models.
        names = [x for x in ("density", "pressure", "Vx", "Vy", "Vz") if x in file]
    elif "velocity" in file and "t" in file:
        names = [x for x in ("particles", "velocity") if x in file]
    else:
        return None
    axes = [_values(file[x]) for x in (f"{x}-coordinate" for x in "xyz") if x in file]
    shape = file[names[0]].shape
    # Without coordinates the last axis has the components.
    space = tuple(map(len, axes)) or shape[2:-1]
    sizes = (*shape[:2], *space)
    constant = []
    parameters = []
    for name in [x for x in ("nu", "force") if x in file]:
        if file[name].ndim > 1:
            varies = (True, False, *[True] * len(space))
            constant.append(_field(name, file[name], sizes, varies))
        else:
            parameters.append(_values(file[name]))
    small = {"parameters": np.stack(parameters, axis=-1)} if parameters else {}
    for name in [x for x in ("t-coordinate", "t") if x in file]:
        # PDEBench has one time more than states.
        small["times"] = _values(file[name])[..., : sizes[1]]
    moving = [_field(x, file[x], sizes, [True] * len(sizes)) for x in names]
    return _Layout(sizes, moving, constant, points_of(axes), small)


def _read_samples(file: Any, samples: Sequence[str]) -> _Layout:
    """A file with a group for each sample."""
    first = file[samples[0]]["data"]
    grid = file[samples[0]].get("grid", {})
    axes = [_values(grid[x]) for x in "xyz" if x in grid]
    sizes = first.shape[:1] + (tuple(map(len, axes)) or first.shape[1:-1])
    field = _field(f"{samples[0]}/data", first, sizes, [True] * len(sizes))
    field = field._replace(
        datasets=tuple(f"{x}/data" for x in samples), sizes=(len(samples), *sizes)
    )
    small = {"times": _values(grid["t"])} if "t" in grid else {}
    return _Layout(field.sizes, [field], [], points_of(axes), small)


def _field(
    name: str,
    dataset: Any,
    sizes: Sequence[int],
    varies: Sequence[bool],
    components: bool | None = None,
) -> _Field:
    """A data set with the axes of `sizes` along which it varies, then axes of components if
    `components` is true; `None` allows one axis of components or none."""
    axes = [size for size, varying in zip(sizes, varies, strict=True) if varying]
    further = dataset.shape[len(axes) :]
    if components is None:
        components = dataset.ndim == len(axes) + 1
    if [*dataset.shape[: len(axes)]] != axes or bool(further) != components:
        expected = [*axes, "components"] if components else axes
        raise ValueError(f"{name} is {[*dataset.shape]}, where its layout has {expected}")
    broadcast = [size if varying else 1 for size, varying in zip(sizes, varies, strict=True)]
    return _Field((name,), tuple(broadcast), math.prod(further), dataset.dtype.itemsize)


def _values(dataset: Any) -> np.ndarray:
    """Coordinates or scalars."""
    return np.asarray(dataset[()], float)


def _texts(values: Any) -> list[str]:
    return [x.decode() if isinstance(x, bytes) else str(x) for x in values]
