"""Variables of `.nc`, `.h5` and `.zarr`, with their dimensions and coordinates, by xarray."""

import contextlib
import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError, short
from ...packages import require
from .hdf5 import datasets
from .layouts import layout
from .stored import MOST_COORDINATES, Roles, StoredArray, inside, points_of, reading, stacked


_TIMES = ("time", "times", "t")
# Codecs of Zarr that turn numbers into bytes and back, and do nothing else.
_CODECS = {
    *("adler32", "astype", "bitround", "blosc", "bytes", "bz2", "cast_value", "crc32"),
    *("crc32c", "delta", "endian", "fixedscaleoffset", "fletcher32", "gzip", "lz4", "lzma"),
    *("packbits", "pcodec", "quantize", "scale_offset", "sharding_indexed", "shuffle"),
    *("transpose", "vlen-bytes", "vlen-utf8", "zfpy", "zlib", "zstd"),
}


def fields(
    path: Path, kind: str, roles: Roles, dimensions: Sequence[str] | None
) -> dict[str, StoredArray]:
    """The variables of a file or store by name, their axes in the order of `dimensions`. A time
    coordinate is also `times`. Coordinates in space without equal steps are also `points`, and
    one axis of tokens takes the place of their axes. Coordinates of each sample's own, such as
    `x(sample, point)`, are `points` as they are, `[samples, tokens, dimension]`.

    The variables in `roles` decide which coordinates these are; if there are none, one with
    most axes. Files of The Well and of PDEBench are known by their layout.
    """
    needed = {"zarr": ("zarr",), "hdf5": ("h5netcdf", "h5py")}.get(kind, ())
    for package in ("xarray", *needed):
        require(package, "fields", f"data.path={path}: it is read by")
    stored: dict[str, StoredArray] = {}
    if kind == "zarr":
        _check_store(path)
    elif kind == "hdf5":
        stored = datasets(path)
        known = layout([path])
        if known is not None:
            return {name: x for name, x in stored.items() if "/" not in name} | known
        # xarray reads those outside of groups, with their dimensions.
        stored = {name: x for name, x in stored.items() if "/" in name}
    with _opened(path, kind) as data:
        return stored | _variables(path, kind, data, roles, dimensions)


def _variables(
    path: Path, kind: str, data: Any, roles: Roles, dimensions: Sequence[str] | None
) -> dict[str, StoredArray]:
    variables = {str(name): x for name, x in data.variables.items()}
    named = [y for x in roles.values() for y in ([x] if isinstance(x, str) else x)]
    used = [name for name in named if name in variables]
    if not used:
        used = sorted(data.data_vars, key=lambda x: -variables[x].ndim)[:1]
    order = {name: tuple(map(str, x.dims)) for name, x in variables.items()}
    if dimensions is not None:
        _check_dimensions(path, dimensions, {name: order[name] for name in used})
        for name, own in order.items():
            if set(own) <= set(dimensions):
                order[name] = tuple(x for x in dimensions if x in own)
    # The first of the variables in use decides what the coordinates are.
    first = order[used[0]] if used else ()
    times = [x for x in first if x in data.coords and _is_time(data[x])]
    along = {x: _coordinates(data, x) for x in first[1:] if x not in times}
    space = tuple(x for x in along if along[x])
    unknown = [x for x in along if not along[x]]
    points = points_of([np.stack([x.values for x in along[name]], -1) for name in space])
    stored: dict[str, StoredArray] = {}
    if times:
        stored["times"] = _stored(path, kind, times[0], variables[times[0]], times[:1])
    if of_each := _of_each_sample(data, first[:1], unknown):
        each = {x: _stored(path, kind, x, variables[x], of_each[x]) for x in of_each}
        stored["points"] = stacked(path, each)
    for name, variable in variables.items():
        flat = space if points is not None and _contains(order[name], space) else ()
        stored[name] = _stored(path, kind, name, variable, order[name], flat)
    if points is not None:
        stored.setdefault("points", StoredArray(points.size, 8, lambda: points))
    return stored


def _check_dimensions(
    path: Path, dimensions: Sequence[str], used: Mapping[str, tuple[str, ...]]
) -> None:
    for name, own in used.items():
        if other := [x for x in own if x not in dimensions]:
            raise InputError(
                f"data.options.dimensions={[*dimensions]}: {name} of {path} has the dimensions "
                f"{[*own]}; say where {other[0]} stands."
            )
    known = {x for own in used.values() for x in own}
    if other := [x for x in dimensions if x not in known]:
        raise InputError(
            f"data.options.dimensions={[*dimensions]}: no variable in use of {path} has a "
            f"dimension {other[0]}, only {', '.join(sorted(known))}."
        )


def _is_time(coordinate: Any) -> bool:
    attributes = coordinate.attrs
    return (
        coordinate.name in _TIMES
        or attributes.get("axis") == "T"
        or attributes.get("standard_name") == "time"
    )


def _coordinates(data: Any, dimension: str) -> list[Any]:
    """The coordinates along a dimension: the one of its name, or all that have no other."""
    names = [dimension] if dimension in data.coords else data.coords
    found = [data[x] for x in names if data[x].dims == (dimension,)]
    return [x for x in found if x.dtype.kind in "fiu" and 0 < x.size < MOST_COORDINATES]


def _of_each_sample(
    data: Any, sample: tuple[str, ...], axes: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    """The coordinates that differ by sample along one of these axes, and their axes."""
    found = {}
    for name, x in data.coords.items():
        further = set(map(str, x.dims)).difference(sample)
        if x.ndim == 2 and len(further) == 1 and further <= set(axes) and x.dtype.kind in "fiu":
            found[str(name)] = (*sample, *further)
    return found


def _contains(order: tuple[str, ...], space: tuple[str, ...]) -> bool:
    starts = range(len(order) - len(space) + 1)
    return any(order[i : i + len(space)] == space for i in starts)


def _stored(
    path: Path,
    kind: str,
    name: str,
    variable: Any,
    order: Sequence[str],
    flat: Sequence[str] = (),
) -> StoredArray:
    """A variable with its axes in some order, and the axes `flat` as one axis of tokens."""
    sizes = [variable.sizes[x] for x in order]
    dimensions = tuple(order)
    if flat:
        first = order.index(flat[0])
        last = first + len(flat)
        sizes[first:last] = [math.prod(sizes[first:last])]
        dimensions = (*order[:first], "tokens", *order[last:])
    encoding = variable.encoding
    piece = encoding.get("chunks") or encoding.get("chunksizes") or ()

    def read() -> np.ndarray:
        with _opened(path, kind) as data:
            x = data.variables[name].transpose(*order).values
            return (x.astype(str) if x.dtype.kind in "OT" else x).reshape(sizes)

    # A chunk is unpacked whole, also where it is larger than the array.
    numbers = max(math.prod(sizes), math.prod(piece) if sizes else 0)
    return StoredArray(numbers, variable.dtype.itemsize, read, dimensions)


@contextlib.contextmanager
def _opened(path: Path, kind: str) -> Iterator[Any]:
    import xarray

    engines: dict[str, dict[str, Any]] = {
        "hdf5": {"engine": "h5netcdf", "phony_dims": "sort"},
        "netcdf3": {"engine": "scipy"},
        "zarr": {"engine": "zarr"},
    }
    with reading(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with xarray.open_dataset(
            path, decode_times=False, cache=False, create_default_indexes=False, **engines[kind]
        ) as data:
            yield data


def _check_store(path: Path) -> None:
    """**Raises:** `InputError` for links out of a store, and for codecs that could run code."""
    with reading(path):
        for folder, folders, files in os.walk(path):
            for name in (*folders, *files):
                if (Path(folder) / name).is_symlink():
                    inside(Path(folder) / name, path)
            for name in {"zarr.json", ".zarray", ".zmetadata"} & set(files):
                _check_codecs(path, json.loads((Path(folder) / name).read_text("utf-8")))


def _check_codecs(path: Path, tree: Any) -> None:
    if isinstance(tree, list):
        for x in tree:
            _check_codecs(path, x)
    if not isinstance(tree, dict):
        return
    for key, value in tree.items():
        if key == "attributes" or key.endswith(".zattrs"):
            continue
        if key in ("codecs", "index_codecs", "filters", "compressor"):
            for codec in value if isinstance(value, list) else [value]:
                own = codec if isinstance(codec, dict) else {"name": codec}
                name = own.get("id", own.get("name"))
                if name is not None and str(name).removeprefix("numcodecs.") not in _CODECS:
                    raise InputError(
                        f"data.path={path}: its codec {short(str(name))} is none of those that "
                        "only pack numbers; write the store with another."
                    )
        _check_codecs(path, value)
