"""Which reader a file or folder needs."""

from collections.abc import Sequence
from pathlib import Path

from ...errors import InputError
from ...packages import require
from . import archives, tables
from .fields import fields
from .hdf5 import datasets
from .layouts import layout
from .stored import KINDS, Roles, StoredArray, array_names, found, inside, reading, stacked


# The first bytes of files, what they are, and the suffixes that name them.
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
_PARTS = {
    "train": "",
    "training": "",
    "valid": "validation_",
    "validation": "validation_",
    "val": "validation_",
    "test": "test_",
}


def stored_arrays(
    path: str | Path, roles: Roles | None = None, dimensions: Sequence[str] | None = None
) -> dict[str, StoredArray]:
    """The arrays at a path, by name. Only sizes are read until an array is asked for.

    | file | arrays |
    |---|---|
    | `.npz`, a folder of `.npy` files, one `.npy` file | by name |
    | `.parquet`, `.csv` | the columns; all with numbers but those in `roles` are `inputs` |
    | `.nc`, `.h5`, `.zarr` | the variables, `times`, and `points` if they have no equal steps |
    | of The Well, of PDEBench | `trajectories`, `times`, `parameters`, `constant` |
    | a folder with `train`, `valid` and `test` files or folders | of training; others as
      `validation_inputs`, `test_inputs` and so on |

    **Arguments:**

    - `roles`: what a task reads, by its own name: the name of an array, or several that become
      channels, the last axis of an array that has the name of the role.
    - `dimensions`: the order of the axes of `.nc`, `.h5` and `.zarr`, by name.

    **Raises:** `InputError` for a file of another kind, a damaged file, what lies outside of
    the file or folder, and Python objects, which could run code.
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
                    f"{[*array.dimensions]}, and of the training part {[*training.dimensions]};"
                    " set data.options.dimensions, the order in all parts."
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
                    f"data.path={path}: {parts[prefix].name} and {x.name} are one part."
                )
            parts[prefix] = inside(x, path)
        if "" in parts:
            return parts
    return {"": path}


def _arrays(
    path: Path, roles: Roles, dimensions: Sequence[str] | None
) -> dict[str, StoredArray]:
    """The arrays of one part, and those that several make."""
    kind = _kind(path)
    if dimensions is not None and kind not in ("hdf5", "netcdf3", "zarr"):
        raise InputError(
            f"data.options.dimensions={[*dimensions]}: {path} names no dimensions; drop it."
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
            stored = _columns(path, tables.parquet(path), roles)
        case "csv":
            stored = _columns(path, tables.comma_separated(path), roles)
        case _:
            stored = fields(path, kind, roles, dimensions)
    if not stored:
        raise InputError(f"data.path={path}: there are no arrays that can be read; {KINDS}.")
    _stack(path, stored, roles)
    if kind in ("parquet", "csv"):
        # A column has a value for each sample, and points are shared by all.
        for name in ("points", "weights", "mask"):
            stored.pop(name, None)
    return stored


def _stack(path: Path, stored: dict[str, StoredArray], roles: Roles) -> None:
    """Makes one array of the several that a role names. A single one beside it, with the same
    dimensions, gets an axis of one channel."""
    single = {names for names in roles.values() if isinstance(names, str)}
    for role, names in roles.items():
        if isinstance(names, str):
            continue
        for prefix in ("", "validation_", "test_"):
            own = [f"{prefix}{x}" for x in names]
            if prefix and not stored.keys() & set(own):
                continue
            channels = stacked(path, {x: found(path, stored, x) for x in own})
            stored[f"{prefix}{role}"] = channels
            for name in single & stored.keys():
                if channels.dimensions and stored[name].dimensions == channels.dimensions[:-1]:
                    stored[name] = stacked(path, {name: stored[name]})


def _kind(path: Path) -> str:
    with reading(path):
        if path.is_dir():
            if any((path / x).exists() for x in ("zarr.json", ".zgroup", ".zmetadata")):
                return "zarr"
            return "layout" if _hdf5_files(path) else "folder"
        if not path.is_file():
            raise InputError(f"data.path={path}: it is no file; {KINDS}.")
        with path.open("rb") as file:
            first = file.read(8)
    content = next((x for start, x in _CONTENTS.items() if first.startswith(start)), None)
    named = _SUFFIXES.get(path.suffix.lower())
    if not first:
        raise InputError(f"data.path={path}: it is empty.")
    if named is None and content is None:
        raise InputError(f"data.path={path}: there are no arrays that can be read; {KINDS}.")
    if named == ("zarr",):
        raise InputError(f"data.path={path}: a Zarr store is a folder; unpack it.")
    if named is None or content in named:
        return content or ""
    if content is not None:
        suffix = next(x for x, kinds in _SUFFIXES.items() if content in kinds)
        raise InputError(
            f"data.path={path}: it is no {path.suffix} file; name it {path.stem}{suffix}."
        )
    return named[0]


def _hdf5_files(path: Path) -> list[Path]:
    return sorted([*path.glob("*.h5"), *path.glob("*.hdf5")])


def _layout(path: Path) -> dict[str, StoredArray]:
    """The trajectories of all files of a folder, which have one layout."""
    require("h5py", "fields", f"data.path={path}: HDF5 files are read by")
    files = [inside(x, path) for x in _hdf5_files(path)]
    for file in files:
        datasets(file)
    known = layout(files)
    if known is None:
        raise InputError(
            f"data.path={path}: its HDF5 files have not the layout of The Well; name one file."
        )
    return known


def _columns(path: Path, table: tables.Table, roles: Roles) -> dict[str, StoredArray]:
    """The columns of a table, and as `inputs` all with numbers that have no other role."""
    columns = table.columns
    if roles.get("inputs") != "inputs" or "inputs" in columns:
        return columns
    apart = array_names(roles)
    for name, place in table.mixed.items():
        if name not in apart:
            raise InputError(
                f"data.path={path}: the column {name} has numbers and {place}; correct it, or "
                "name the columns to read, data.options.inputs=[…]."
            )
    names = [x for x in table.numbers if x not in apart]
    if not names:
        return columns
    return columns | {"inputs": stacked(path, {x: columns[x] for x in names})}
