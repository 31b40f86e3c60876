"""Reads variables of `.nc`, `.h5` and `.zarr` by xarray, and aligns dimensions by name."""

import contextlib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ...errors import InputError, short
from ...packages import require
from .hdf5 import datasets
from .layouts import layout
from .stored import Roles, StoredArray, array_names, points_of, reading, stack_channels


# The dimensions of each variable, in the order in which it is read.
Dimensions: TypeAlias = Mapping[str, tuple[str, ...]]

_TIMES = ("time", "times", "t")
_SAMPLES = ("sample", "samples")
# Codecs of Zarr that only pack numbers and cannot run code.
_CODECS = {
    *("adler32", "astype", "bitround", "blosc", "bytes", "bz2", "cast_value", "crc32"),
    *("crc32c", "delta", "endian", "fixedscaleoffset", "fletcher32", "gzip", "lz4", "lzma"),
    *("packbits", "pcodec", "quantize", "scale_offset", "sharding_indexed", "shuffle"),
    *("transpose", "vlen-bytes", "vlen-utf8", "zfpy", "zlib", "zstd"),
}


def fields(
    path: Path, kind: str, roles: Roles, dimensions: Sequence[str] | None
) -> dict[str, StoredArray]:
    """The variables of a file or store by name, their axes in the order of `dimensions`, by
    default as in the largest variable in `roles`. A time coordinate is also `times`.
    Coordinates in space with unequal steps are also `points`, and their axes become one axis of
    tokens. Coordinates of each sample's own, such as `x(sample, point)`, are `points`,
    `[samples, tokens, dimension]`.

    Coordinates come from the first variable in `roles`, or else from a variable with most
    axes. Files of The Well and of PDEBench are recognised by their layout.
    """
    packages = {"zarr": ("zarr",), "hdf5": ("h5netcdf", "h5py")}.get(kind, ())
    for package in ("xarray", *packages):
        require(package, "fields", f"data.path={path}: it is read by")
    stored: dict[str, StoredArray] = {}
    if kind == "hdf5":
        stored = datasets(path)
        trajectories = layout([path])
        if trajectories is not None:
            return {x: array for x, array in stored.items() if "/" not in x} | trajectories
    with _open_dataset(path, kind) as data:
        # h5netcdf makes up names where a file has none.
        unnamed = [
            name
            for name, x in data.variables.items()
            if any(str(dimension).startswith("phony_dim_") for dimension in x.dims)
        ]
        return stored | _variables(path, kind, data.drop_vars(unnamed), roles, dimensions)


def _variables(
    path: Path, kind: str, data: Any, roles: Roles, dimensions: Sequence[str] | None
) -> dict[str, StoredArray]:
    names = [name for name in array_names(roles) if name in data.variables]
    if not names:
        names = sorted(data.data_vars, key=lambda x: -data[x].ndim)[:1]
    order = _align(path, data, names, dimensions)
    first = order[names[0]] if names else ()
    times = [x for x in first if _is_time(data, x)]
    _check_order(path, names, order, times if "trajectories" in roles else ())
    along = {x: _coordinates(data, x) for x in first[1:] if x not in times}
    space = tuple(x for x in along if along[x])
    without = [x for x in along if not along[x]]
    points = points_of([np.stack([x.values for x in along[name]], -1) for name in space])
    stored: dict[str, StoredArray] = {}
    if times and times[0] in data.coords:
        stored["times"] = _stored_array(path, kind, data[times[0]], times[:1])
    if coordinates := _of_each_sample(data, first[:1], without):
        arrays = {
            x: _stored_array(path, kind, data[x], axes) for x, axes in coordinates.items()
        }
        stored["points"] = stack_channels(path, arrays)
    for name, axes in order.items():
        flat = space if points is not None and _contains(axes, space) else ()
        stored[name] = _stored_array(path, kind, data[name], axes, flat)
    if points is not None:
        stored.setdefault("points", StoredArray(points.size, 8, lambda: points))
    return stored


def _align(
    path: Path, data: Any, names: Sequence[str], dimensions: Sequence[str] | None
) -> Dimensions:
    """The dimensions of all variables in one order: `dimensions`, or as in the largest of the
    variables `names`. Other dimensions keep their place."""
    largest_first = sorted(names, key=lambda name: -data[name].ndim)
    order = list(dict.fromkeys(str(x) for name in largest_first for x in data[name].dims))
    if dimensions is not None:
        if sorted(dimensions) != sorted(order):
            raise InputError(
                f"data.options.dimensions={[*dimensions]}: the variables in use of {path} have "
                f"the dimensions {order}; pass each of them once."
            )
        order = [*dimensions]
    aligned = {}
    for name, variable in data.variables.items():
        ordered = iter([x for x in order if x in variable.dims])
        aligned[str(name)] = tuple(next(ordered) if x in order else x for x in variable.dims)
    return aligned


def _check_order(
    path: Path, names: Sequence[str], order: Dimensions, times: Sequence[str]
) -> None:
    """**Raises:** `InputError` if samples are not first, or `times` of trajectories second."""
    first = {order[name][0]: name for name in names if order[name]}
    if len(first) > 1:
        several = " and ".join(f"{name} {[*order[name]]}" for name in first.values())
        raise InputError(
            f"data.path={path}: the first dimensions of {several} differ, but must be samples; "
            "set data.options.dimensions, or use one name for samples."
        )
    for name in names:
        axes = order[name]
        samples = [x for x in axes if x in _SAMPLES] or [x for x in axes if x not in times][:1]
        expected = sorted(axes, key=lambda x: (x not in samples, x not in times))
        # A trajectory without further axes is refused by the task.
        if expected != [*axes] and (not times or len(axes) > 2):
            raise InputError(
                f"data.path={path}: {name} has the dimensions {[*axes]}, but samples come first"
                f"{', then times' if times else ''}; set data.options.dimensions={expected}."
            )


def _is_time(data: Any, dimension: str) -> bool:
    attributes = data[dimension].attrs
    return (
        dimension in _TIMES
        or attributes.get("axis") == "T"
        or attributes.get("standard_name") == "time"
    )


def _coordinates(data: Any, dimension: str) -> list[Any]:
    """The coordinates along a dimension: the one with its name, else all that have only it."""
    names = [dimension] if dimension in data.coords else data.coords
    along = [data[x] for x in names if data[x].dims == (dimension,)]
    return [x for x in along if x.dtype.kind in "fiu" and x.size]


def _of_each_sample(
    data: Any, sample: tuple[str, ...], axes: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """The coordinates of each sample's own along one of these axes, and their dimensions."""
    coordinates = {}
    for name, x in data.coords.items():
        further = set(map(str, x.dims)).difference(sample)
        if x.ndim == 2 and len(further) == 1 and further <= set(axes) and x.dtype.kind in "fiu":
            coordinates[str(name)] = (*sample, *further)
    return coordinates


def _contains(order: tuple[str, ...], space: tuple[str, ...]) -> bool:
    starts = range(len(order) - len(space) + 1)
    return any(order[i : i + len(space)] == space for i in starts)


def _stored_array(
    path: Path, kind: str, variable: Any, order: Sequence[str], flat: Sequence[str] = ()
) -> StoredArray:
    """A variable with its axes in this order, and the axes `flat` as one axis of tokens."""
    sizes = [variable.sizes[x] for x in order]
    dimensions = tuple(order)
    if flat:
        first = order.index(flat[0])
        last = first + len(flat)
        sizes[first:last] = [math.prod(sizes[first:last])]
        dimensions = (*order[:first], "tokens", *order[last:])
    piece = variable.encoding.get("chunks") or variable.encoding.get("chunksizes") or ()

    def read() -> np.ndarray:
        with _open_dataset(path, kind) as data:
            x = data.variables[variable.name].transpose(*order).values
            return (x.astype(str) if x.dtype.kind in "OT" else x).reshape(sizes)

    # Whole chunks are unpacked, which may be larger than the array.
    numbers = max(math.prod(sizes), math.prod(piece) if sizes else 0)
    return StoredArray(numbers, variable.dtype.itemsize, read, dimensions)


@contextlib.contextmanager
def _open_dataset(path: Path, kind: str) -> Iterator[Any]:
    import xarray

    engines: dict[str, dict[str, Any]] = {
        "hdf5": {"engine": "h5netcdf", "phony_dims": "sort"},
        "netcdf3": {"engine": "scipy"},
        "zarr": {},
    }
    with reading(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = _checked_store(path) if kind == "zarr" else path
        with xarray.open_dataset(
            source,
            decode_times=False,
            cache=False,
            create_default_indexes=False,
            **engines[kind],
        ) as data:
            yield data


def _checked_store(path: Path) -> Any:
    """Opens a Zarr store. **Raises:** `InputError` for codecs that could run code, by the
    metadata that the store reads."""
    from xarray.backends import ZarrStore

    options: dict[str, Any] = {"mode": "r", "consolidated": None}  # consolidated if it is
    store = ZarrStore.open_group(path, **options)
    for name, array in store.zarr_group.arrays():
        metadata = array.metadata.to_dict()
        compressor = metadata.get("compressor")
        codecs = [
            *(metadata.get("codecs") or ()),
            *(metadata.get("filters") or ()),
            *([compressor] if compressor else ()),
        ]
        for codec in codecs:  # grows
            kind = str(codec.get("id", codec.get("name")))
            if kind.removeprefix("numcodecs.") not in _CODECS:
                raise InputError(
                    f"data.path={path}: {name} has the codec {short(kind)}, which may do more "
                    "than pack numbers; save the store with another."
                )
            options = codec.get("configuration", {})
            codecs += [*options.get("codecs", ()), *options.get("index_codecs", ())]
    return store
