"""Rows with the same columns, printed and written to files, and the console of the scripts; it
knows nothing of the rest of the package."""

import csv
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .errors import naming, printable, whole_file


Row = Mapping[str, Any]
# Headings of columns whose names alone are unclear.
Headings = Mapping[str, str]
_NAMES: Headings = MappingProxyType({})
# What a text may hold that is not printed: ends of lines, spaces, and marks that join letters.
OF_TEXTS = "\n\t\u00a0\u3000\u200c\u200d"


class Terminal(Console):
    """Console of the scripts, which reads no markup. The cursor stays visible beside a bar, so
    that a process that a signal ends leaves the terminal as it was."""

    def __init__(self) -> None:
        super().__init__(highlight=False, markup=False, soft_wrap=True)

    def show_cursor(self, show: bool = True) -> bool:
        return super().show_cursor(True)

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(printable(x) if isinstance(x, str) else x for x in objects), **options)


class Report(NamedTuple):
    """A table of measurements, and what was measured."""

    name: str
    about: str
    rows: list[dict[str, Any]]
    headings: Headings = _NAMES


def write_report(folder: Path, report: Report) -> None:
    """Writes `report.md`, `report.csv` and `report.json` into `folder`."""
    write_json(folder / "report.json", {"about": report.about, "rows": report.rows})
    sheet = folder / "report.csv"
    with naming(sheet), sheet.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _columns(report.rows))
        writer.writeheader()
        writer.writerows(report.rows)
    table = markdown_table(*table_cells(report.rows, report.headings))
    text = f"# {report.name}\n\n{report.about}\n\n{table}\n"
    page = folder / "report.md"
    with naming(page):
        page.write_text(text, encoding="utf-8")


def show_table(rows: Sequence[Row], headings: Headings = _NAMES) -> None:
    """Prints rows as a table; a row may lack a column."""
    shown, lines = table_cells(rows, headings)
    table = Table(*(escape(printable(x)) for x in shown))
    for line in lines:
        table.add_row(*(escape(printable(x)) for x in line))
    console = Console()
    # Where the output is no terminal its width is unknown; a table should not be cut.
    console.width = max(console.width, 160)
    console.print(table)


def show_text(text: str) -> None:
    """Prints a text that a model wrote. On a terminal, what that would obey is written out."""
    print(printable(text, OF_TEXTS) if sys.stdout.isatty() else text)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON, all of it or nothing, and makes the folder. Numbers that are not finite,
    which JSON does not know, become null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_plain(content), indent=2, allow_nan=False)
    with whole_file(path) as written:
        written.write_text(text + "\n", encoding="utf-8")


def _plain(content: Any) -> Any:
    """Content of JSON, from one that may hold numbers of NumPy and such that are not finite."""
    match content:
        case Mapping():
            return {key: _plain(value) for key, value in content.items()}
        case list() | tuple():
            return [_plain(value) for value in content]
        case np.generic():
            return _plain(content.item())
        case float() if not math.isfinite(content):
            return None
        case _:
            return content


def table_cells(
    rows: Sequence[Row], headings: Headings = _NAMES
) -> tuple[list[str], list[list[str]]]:
    """The headings and, for each row, the cells of a table, as texts."""
    columns = _columns(rows)
    shown = [headings.get(column, column.replace("_", " ")) for column in columns]
    return shown, [[_text(row.get(column)) for column in columns] for row in rows]


def markdown_table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, of which no cell ends early."""
    lines = [headings, ["---"] * len(headings), *lines]
    cells = ([" ".join(x.replace("|", "\\|").split()) for x in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _text(value: Any) -> str:
    """A cell of a table."""
    match value:
        case None:
            return "–"
        case list():
            return ", ".join(map(_text, value))
        case bool():
            return str(value)
        case np.generic():
            return _text(value.item())
        case float():
            return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
        case int():
            return f"{value:,}"
        case _:
            return str(value)


def duration(seconds: float) -> str:
    """A time in two units at most: `45 s`, `3 min 20 s`, `2 h 5 min`."""
    minutes, left = divmod(round(seconds), 60)
    if not minutes:
        return f"{left} s"
    if minutes < 60:
        return f"{minutes} min {left} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _columns(rows: Sequence[Row]) -> list[str]:
    """Columns of all rows, in the order in which they first occur."""
    return [*dict.fromkeys(column for row in rows for column in row)]
