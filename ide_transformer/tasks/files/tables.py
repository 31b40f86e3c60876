"""Columns of tables, `.parquet` and `.csv`."""

import contextlib
import csv
import functools as ft
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import InputError, short
from ...memory import check_bytes
from ...packages import require
from .stored import StoredArray, reading


# Cells that stand for a missing number.
_MISSING = {"", "na", "n/a", "nan", "null", "none"}
_ROWS = 4096


class Table(NamedTuple):
    """The columns of a table by name, those with one number in each row, and where there are
    texts among numbers."""

    columns: dict[str, StoredArray]
    numbers: list[str]
    mixed: dict[str, str]


def parquet(path: Path) -> Table:
    """The columns of a `.parquet` file; lists of equal length are further axes."""
    require("pyarrow", "datasets", f"data.path={path}: tables are read by")
    import pyarrow as pa
    from pyarrow import compute, parquet

    functions = vars(compute)
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
        pieces = []
        with reading(path), parquet.ParquetFile(path) as file:
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

    columns = {x: StoredArray(number, 8, ft.partial(read, x)) for x, number in counts.items()}
    return Table(columns, numbers, {})


def comma_separated(path: Path) -> Table:
    """The columns of a `.csv` file in UTF-8 whose first line names them. Commas, semicolons or
    tabs divide it, whichever the first line has most of.

    A column is integers, real numbers (where cells may be missing) or texts.
    """
    check_bytes(f"data.path={path}", path.stat().st_size)
    with reading(path):
        columns = {name: _Column() for name in _names(path)}
        rows = 0
        for lines, chunk in _chunks(path, len(columns)):
            rows += len(lines)
            for column, cells in zip(columns.values(), chunk, strict=True):
                column.see(lines, cells)
    if not rows:
        raise InputError(f"data.path={path}: it has no rows below the names of its columns.")
    convert = {name: x.convert for name, x in columns.items() if x.convert is not None}

    @ft.cache
    def numbers() -> dict[str, np.ndarray]:
        """All of them at once, so that many columns are one pass."""
        return _converted(path, columns, convert)

    def read(name: str) -> np.ndarray:
        return (
            numbers()[name] if name in convert else _converted(path, columns, {name: str})[name]
        )

    sizes = {name: 8 if name in convert else 4 * x.width for name, x in columns.items()}
    stored = {
        name: StoredArray(rows, size, ft.partial(read, name)) for name, size in sizes.items()
    }
    mixed = {name: x.text for name, x in columns.items() if x.text and x.has_numbers}
    return Table(stored, list(convert), mixed)


class _Column:
    """What the cells of a column are, as far as they have been seen."""

    def __init__(self) -> None:
        self.width = 0
        self.text = ""
        self.has_numbers = False
        self.whole = True

    @property
    def convert(self) -> Callable[[str], int | float] | None:
        """What makes a number of a cell; `None` for texts."""
        if self.text or not self.has_numbers:
            return None
        return int if self.whole else _real

    def see(self, lines: Sequence[int], cells: Sequence[str]) -> None:
        self.width = max(self.width, *map(len, cells))
        for line, cell in zip(lines, cells, strict=True):
            if _is_missing(cell):
                self.whole = False
                continue
            try:
                float(cell)
            except ValueError:
                self.text = self.text or f"{short(cell)} in line {line}"
                continue
            self.has_numbers = True
            self.whole = self.whole and _is_whole(cell)


def _is_whole(cell: str) -> bool:
    try:
        return abs(int(cell)) < 2**63
    except ValueError:
        return False


def _is_missing(cell: str) -> bool:
    return cell.strip().lower() in _MISSING


def _real(cell: str) -> float:
    return np.nan if _is_missing(cell) else float(cell)


def _converted(
    path: Path, columns: Iterable[str], convert: Mapping[str, Callable[[str], Any]]
) -> dict[str, np.ndarray]:
    """Those columns of a file that are converted."""
    names = list(columns)
    pieces: dict[str, list[np.ndarray]] = {name: [] for name in convert}
    with reading(path):
        for _, chunk in _chunks(path, len(names)):
            for name, cells in zip(names, chunk, strict=True):
                if name in convert:
                    pieces[name].append(np.array(list(map(convert[name], cells))))
    return {name: np.concatenate(x) for name, x in pieces.items()}


def _names(path: Path) -> list[str]:
    with _opened(path) as rows:
        names = [x.strip() for x in next(rows, [])]
    if not any(names):
        raise InputError(f"data.path={path}: its first line has no names of columns.")
    if all(map(_names_nothing, names)):
        raise InputError(
            f"data.path={path}: its first line has numbers; write the names of the columns "
            "there, such as x,y,targets."
        )
    for i, name in enumerate(names):
        if not name or name in names[:i]:
            raise InputError(
                f"data.path={path}: column {i + 1} of its first line has "
                f"{f'the name {short(name)} again' if name else 'no name'}."
            )
    return names


def _names_nothing(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return not name
    return True


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The rows of a file. A byte-order mark is no part of the first name."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline(2**20)
        file.seek(0)
        yield csv.reader(file, delimiter=max(",;\t", key=first.count), strict=True)


def _chunks(path: Path, number: int) -> Iterator[tuple[list[int], list[tuple[str, ...]]]]:
    """Some rows at a time: their lines, and their cells by column."""
    with _opened(path) as rows:
        next(rows)
        whole = ((rows.line_num, row) for row in rows if row)
        while some := list(itertools.islice(whole, _ROWS)):
            for line, row in some:
                if len(row) != number:
                    raise InputError(
                        f"data.path={path}: line {line} has {len(row)} cells, not {number}."
                    )
            yield [line for line, _ in some], list(zip(*(row for _, row in some), strict=True))
