"""Reads columns of tables, `.parquet` and `.csv`."""

import contextlib
import csv
import functools as ft
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import InputError, short, shown
from ...memory import check_bytes
from ...packages import require
from .stored import StoredArray, reading


# Cells that stand for a missing number.
_MISSING = {"", "na", "n/a", "nan", "null", "none"}


class Table(NamedTuple):
    """The columns of a table by name.

    - `numbers`: the names of columns with a number in each row.
    - `mixed`: by name of a column with numbers and texts, the first text and its row.
    """

    columns: dict[str, StoredArray]
    numbers: list[str]
    mixed: dict[str, str]


def parquet_columns(path: Path) -> Table:
    """The columns of a `.parquet` file; lists of equal length are further axes."""
    require("pyarrow", "tables", f"data.path={path}: tables are read by")
    import pyarrow as pa
    from pyarrow import parquet

    with reading(path), parquet.ParquetFile(path) as file:
        table = file.metadata
        schema = file.schema_arrow
        counts = dict.fromkeys(schema.names, 0)
        for group in map(table.row_group, range(table.num_row_groups)):
            for column in map(group.column, range(group.num_columns)):
                place = column.path_in_schema
                name = max((x for x in counts if f"{place}.".startswith(f"{x}.")), key=len)
                counts[name] += column.num_values
        numbers = [
            x.name
            for x in schema
            if pa.types.is_integer(x.type) or pa.types.is_floating(x.type)
        ]

    def read(name: str) -> np.ndarray:
        with reading(path), parquet.ParquetFile(path) as file:
            pieces = file.read(columns=[name])[name].chunks
            return np.concatenate([_with_axes(piece, name) for piece in pieces])

    columns = {x: StoredArray(count, 8, ft.partial(read, x)) for x, count in counts.items()}
    return Table(columns, numbers, {})


def _with_axes(piece: Any, name: str) -> np.ndarray:
    """A piece of a column as an array, with lists as further axes."""
    import pyarrow as pa

    compute = importlib.import_module("pyarrow.compute")
    shape = [len(piece)]
    while pa.types.is_nested(piece.type) and not pa.types.is_struct(piece.type):
        lengths = compute.list_value_length(piece).unique().to_pylist()
        if piece.null_count or len(lengths) > 1:
            raise ValueError(f"the lists of the column {name} are not all of one length")
        shape += lengths or [0]
        piece = piece.flatten()
    values = piece.to_numpy(zero_copy_only=False).reshape(shape)
    return values.astype(str) if pa.types.is_string(piece.type) else values


def csv_columns(path: Path) -> Table:
    """The columns of a `.csv` file in UTF-8, named by its first line. They are separated by
    commas, semicolons or tabs, whichever the first line has most of.

    Cells of a column are integers, real numbers (if some are missing, too) or texts.
    """
    require("pyarrow", "tables", f"data.path={path}: tables are read by")
    import pyarrow as pa
    from pyarrow import csv as arrow

    check_bytes(f"data.path={path}", path.stat().st_size)
    with reading(path), path.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline(2**20)
        delimiter = max(",;\t", key=first.count)
        names = _names(path, next(csv.reader([first], delimiter=delimiter), []))
        table = arrow.read_csv(
            path,
            arrow.ReadOptions(column_names=names, skip_rows=1),
            arrow.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            arrow.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        )
    if not table.num_rows:
        raise InputError(f"data.path={path}: it has no rows below its column names.")
    columns = {}
    numbers = []
    mixed = {}
    for name in names:
        values = _numbers(table[name])
        if values is not None:
            numbers.append(name)
            columns[name] = StoredArray(len(values), 8, ft.partial(np.asarray, values))
            continue
        cells = table[name].to_pylist()
        width = max(map(len, cells))
        columns[name] = StoredArray(len(cells), 4 * width, ft.partial(np.array, cells, "U"))
        texts = [x for x in cells if not (_is_number(x) or _is_missing(x))]
        if any(_is_number(x) and not _is_missing(x) for x in cells):
            mixed[name] = f"{short(texts[0])} in row {cells.index(texts[0]) + 1}"
    return Table(columns, numbers, mixed)


def _numbers(cells: Any) -> np.ndarray | None:
    """Cells as integers, or as real numbers; `None` for texts, and if all are missing."""
    import pyarrow as pa

    compute = importlib.import_module("pyarrow.compute")
    trimmed = compute.utf8_trim_whitespace(cells)
    lower = compute.utf8_lower(trimmed)
    missing = compute.is_in(lower, value_set=pa.array(sorted(_MISSING)))
    present = compute.if_else(missing, pa.scalar(None, pa.string()), trimmed)
    for kind in (pa.int64(), pa.float64()):
        # Missing cells become NaN, so integers cannot have them.
        if present.null_count == len(present) or (kind == pa.int64() and present.null_count):
            continue
        with contextlib.suppress(pa.ArrowInvalid):
            return present.cast(kind).to_numpy()
    return None


def _is_missing(cell: str) -> bool:
    return cell.strip().lower() in _MISSING


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _names(path: Path, cells: Sequence[str]) -> list[str]:
    names = [x.strip() for x in cells]
    if "" in names or len(set(names)) < len(names) or all(map(_is_number, names)):
        raise InputError(
            f"data.path={path}: its first line is {shown(', '.join(names))}, but must name "
            "each column once, such as x,y,targets."
        )
    return names
