"""Reads arrays from an `.npz` file, a folder of `.npy` files or a `.parquet` table, without
running code in them."""

import contextlib
import functools as ft
import math
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from ..packages import require


class StoredArray(NamedTuple):
    """An array in a file: how many numbers, the bytes of each, and what reads them."""

    numbers: int
    itemsize: int
    read: Callable[[], np.ndarray]


def stored_arrays(path: str | Path) -> dict[str, StoredArray]:
    """The arrays at a path, by name; only their shapes are read.

    **Raises:** `InputError` for a file of another kind, a damaged file, and arrays of Python
    objects, which could run code.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"data.path={path}: there is no such file or folder.")
    inside = sorted(path.glob("*.npy")) if path.is_dir() else [path]
    if others := [x for x in inside if not x.is_file()]:
        raise InputError(f"data.path={path}: {others[0]} is no file; {_KINDS}.")
    if path.is_dir():
        files = {x.stem: ft.partial(x.open, "rb") for x in inside}
    elif path.suffix == ".parquet":
        require("pyarrow", "datasets", f"data.path={path}: tables are read by")
        return _columns(path)
    elif path.suffix == ".npz" or zipfile.is_zipfile(path):
        with _reading(path), zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
        files = {name.removesuffix(".npy"): ft.partial(_opened, path, name) for name in names}
    else:
        files = {}
    if not files:
        raise InputError(f"data.path={path}: there are no arrays that can be read; {_KINDS}.")
    return {name: _stored(path, name, opened) for name, opened in files.items()}


_KINDS = (
    "give an .npz file, a folder of .npy files or a .parquet table. From arrays in Python "
    "np.savez('data.npz', inputs=…, targets=…) writes one"
)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # zipfile, NumPy and pyarrow have many
        raise InputError(
            f"data.path={path}: it is damaged, or of an unknown kind ({error}); {_KINDS}."
        ) from None


@contextlib.contextmanager
def _opened(path: Path, name: str) -> Iterator[Any]:
    with zipfile.ZipFile(path) as archive, archive.open(name) as file:
        yield file


def _stored(path: Path, name: str, opened: Callable[[], Any]) -> StoredArray:
    form = np.lib.format
    with _reading(path), opened() as file:
        headers = {(1, 0): form.read_array_header_1_0, (2, 0): form.read_array_header_2_0}
        version = form.read_magic(file)
        if version not in headers:
            raise ValueError(f"{name} has version {version} of the format of NumPy")
        shape, _, dtype = headers[version](file)
    if dtype.hasobject:
        raise InputError(
            f"data.path={path}: {name} holds Python objects, which could run code; write an "
            "array of numbers."
        )

    def read() -> np.ndarray:
        with _reading(path), opened() as file:
            return form.read_array(file, allow_pickle=False)

    return StoredArray(math.prod(shape), dtype.itemsize, read)


def _columns(path: Path) -> dict[str, StoredArray]:
    """The columns of a table; lists of equal length are further axes."""
    import pyarrow as pa
    from pyarrow import compute, parquet

    functions = vars(compute)
    with _reading(path), parquet.ParquetFile(path) as file:
        table = file.metadata
        counts = dict.fromkeys(file.schema_arrow.names, 0)
        for group in map(table.row_group, range(table.num_row_groups)):
            for column in map(group.column, range(group.num_columns)):
                inside = column.path_in_schema
                name = max((x for x in counts if f"{inside}.".startswith(f"{x}.")), key=len)
                counts[name] += column.num_values

    def read(name: str) -> np.ndarray:
        pieces = []
        with _reading(path), parquet.ParquetFile(path) as file:
            for piece in file.read(columns=[name])[name].chunks:
                shape = [len(piece)]
                while pa.types.is_nested(piece.type) and not pa.types.is_struct(piece.type):
                    lengths = functions["min_max"](
                        functions["list_value_length"](piece)
                    ).as_py()
                    if piece.null_count or lengths["min"] != lengths["max"]:
                        raise ValueError(
                            f"the lists of the column {name} are not all of one length"
                        )
                    shape.append(lengths["min"] or 0)
                    piece = piece.flatten()
                values = piece.to_numpy(zero_copy_only=False).reshape(shape)
                pieces.append(values.astype(str) if pa.types.is_string(piece.type) else values)
            return np.concatenate(pieces)

    return {x: StoredArray(number, 8, ft.partial(read, x)) for x, number in counts.items()}
