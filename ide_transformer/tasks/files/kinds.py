"""Chooses the reader of a file or folder."""

from collections.abc import Sequence
from pathlib import Path

from ...errors import InputError
from ...packages import require
from . import archives, tables
from .fields import fields
from .hdf5 import datasets
from .layouts import layout
from .stored import (
    KINDS,
    PREFIXES,
    Roles,
    StoredArray,
    array_names,
    find_array,
    reading,
    stack_channels,
)


# The kind of a file by its first bytes, and the kinds that a suffix allows.
_CONTENTS = {
    b"PK\x03\x04": "npz",
    b"PK\x05\x06": "npz",
    b"\x93NUMPY": "npy",
    b"PAR1": "parquet",
    b"\x89HDF\r\n\x1a\n": "hdf5",
    b"CDF\x01": "netcdf3",
    b"CDF\x02": "netcdf3",
    b"CDF\x05": "netcdf3",
}
_SUFFIXES = {
    ".npz": ("npz",),
    ".npy": ("npy",),
    ".parquet": ("parquet",),
    ".csv": ("csv",),
    ".nc": ("hdf5", "netcdf3"),
    ".h5": ("hdf5",),
    ".hdf5": ("hdf5",),
    ".zarr": ("zarr",),
}
_PARTS = {"train": "", "training": "", **PREFIXES}


def stored_arrays(
    path: str | Path, roles: Roles | None = None, dimensions: Sequence[str] | None = None
) -> dict[str, StoredArray]:
    """The arrays at a path, by name. Reads sizes only; an array is read when it is needed.

    | file | arrays |
    |---|---|
    | `.npz`, a folder of `.npy` files, one `.npy` file | by name |
    | `.parquet`, `.csv` | the columns; columns of numbers without a role are also `inputs` |
    | `.nc`, `.h5`, `.zarr` | the variables, `times`, and `points` if their steps are unequal |
    | of The Well, of PDEBench | `trajectories`, `times`, `parameters`, `constant` |
    | a folder with `train`, `valid` and `test` files or folders | of training; other parts with
      a prefix, such as `validation_inputs` |

    **Arguments:**

    - `roles`: by the name of a role in a task, such as `inputs`, the name of its array; or
      several names, whose arrays become the channels (the last axis) of an array of this role.
    - `dimensions`: the order of the dimensions of `.nc`, `.h5` and `.zarr`.

    **Raises:** `InputError` for a file of another kind, a damaged file, data in
    another HDF5 file, and Python objects, which could run code.
    """
    path = Path(path)
    with reading(path):
        if not path.exists():
            raise InputError(f"data.path={path}: there is no such file or folder.")
        parts = _parts(path)
    stored: dict[str, StoredArray] = {}
    for prefix, part in sorted(parts.items()):  # training first
        for name, array in _arrays(part, roles or {}, dimensions).items():
            training = stored.get(name, array)
            if array.dimensions != training.dimensions:
                raise InputError(
                    f"data.path={path}: {name} of {part.name} has the dimensions "
                    f"{[*array.dimensions]}, expected {[*training.dimensions]} as in training; "
                    "set data.options.dimensions, the order in all parts."
                )
            stored[f"{prefix}{name}"] = array
    return stored


def _parts(path: Path) -> dict[str, Path]:
    """The files or folders of the parts, by the prefix of their arrays."""
    if not path.is_dir():
        return {"": path}
    for folder in (path / "data", path):
        parts: dict[str, Path] = {}
        for x in sorted(folder.iterdir()) if folder.is_dir() else []:
            prefix = _PARTS.get(x.stem)
            if prefix is None or x.suffix == ".npy":
                continue
            if prefix in parts:
                raise InputError(
                    f"data.path={path}: {parts[prefix].name} and {x.name} are one part; drop "
                    "one."
                )
            parts[prefix] = x
        if "" in parts:
            return parts
    return {"": path}


def _arrays(
    path: Path, roles: Roles, dimensions: Sequence[str] | None
) -> dict[str, StoredArray]:
    """The arrays of one part, with arrays of channels."""
    kind = _kind(path)
    if dimensions is not None and kind not in ("hdf5", "netcdf3", "zarr"):
        raise InputError(
            f"data.options.dimensions={[*dimensions]}: {path} has no named dimensions; drop it."
        )
    match kind:
        case "npz":
            stored = archives.archive(path)
        case "npy":
            stored = {path.stem: archives.single(path, path)}
        case "folder":
            stored = archives.folder(path)
        case "layout":
            stored = _layout(path)
        case "parquet":
            stored = _columns(path, tables.parquet_columns(path), roles)
        case "csv":
            stored = _columns(path, tables.csv_columns(path), roles)
        case _:
            stored = fields(path, kind, roles, dimensions)
    _stack_roles(path, stored, roles)
    if kind in ("parquet", "csv"):
        # A column has a value for each sample, which these have not.
        for name in ("points", "weights", "mask"):
            stored.pop(name, None)
    return stored


def _stack_roles(path: Path, stored: dict[str, StoredArray], roles: Roles) -> None:
    """Stacks the arrays of a role with several names. Arrays of roles with one name get an axis
    of one channel if their dimensions are equal."""
    single = {names for names in roles.values() if isinstance(names, str)}
    for role, names in roles.items():
        if isinstance(names, str):
            continue
        for prefix in ("", "validation_", "test_"):
            part_names = [f"{prefix}{x}" for x in names]
            if prefix and not stored.keys() & set(part_names):
                continue
            arrays = {x: find_array(path, stored, x) for x in part_names}
            channels = stack_channels(path, arrays)
            stored[f"{prefix}{role}"] = channels
            for name in single & stored.keys():
                if channels.dimensions and stored[name].dimensions == channels.dimensions[:-1]:
                    stored[name] = stack_channels(path, {name: stored[name]})


def _kind(path: Path) -> str:
    with reading(path):
        if path.is_dir():
            if any((path / x).exists() for x in ("zarr.json", ".zgroup", ".zmetadata")):
                return "zarr"
            return "layout" if _hdf5_files(path) else "folder"
        with path.open("rb") as file:
            first = file.read(8)
    content = next((x for start, x in _CONTENTS.items() if first.startswith(start)), None)
    allowed = _SUFFIXES.get(path.suffix.lower(), (content,))
    kind = content or allowed[0]
    if kind is None or kind == "zarr" or kind not in allowed:
        raise InputError(
            f"data.path={path}: its kind is unknown, or not what its name says (content: "
            f"{content or 'unknown'}); {KINDS}."
        )
    return kind


def _hdf5_files(path: Path) -> list[Path]:
    return sorted([*path.glob("*.h5"), *path.glob("*.hdf5")])


def _layout(path: Path) -> dict[str, StoredArray]:
    """The trajectories of the HDF5 files of a folder, which have one layout."""
    require("h5py", "fields", f"data.path={path}: HDF5 files are read by")
    files = _hdf5_files(path)
    for file in files:
        datasets(file)
    stored = layout(files)
    if stored is None:
        raise InputError(
            f"data.path={path}: its HDF5 files do not have the layout of The Well; pass one "
            "file."
        )
    return stored


def _columns(path: Path, table: tables.Table, roles: Roles) -> dict[str, StoredArray]:
    """The columns of a table, and `inputs`, all columns of numbers without another role."""
    columns = table.columns
    if roles.get("inputs") != "inputs" or "inputs" in columns:
        return columns
    other_roles = array_names(roles)
    for name, place in table.mixed.items():
        if name not in other_roles:
            raise InputError(
                f"data.path={path}: the column {name} has numbers and {place}; correct it, or "
                "set the columns to read, data.options.inputs=[…]."
            )
    inputs = {x: columns[x] for x in table.numbers if x not in other_roles}
    return columns | {"inputs": stack_channels(path, inputs)} if inputs else columns
