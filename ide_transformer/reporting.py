"""Tables of rows, printed and written to files."""

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
# The heading of each column; by default its name.
Headings = Mapping[str, str]
_NAMES: Headings = MappingProxyType({})
# Characters that `printable` leaves in texts: line ends, spaces, and marks that join letters.
OF_TEXTS = "\n\t\u00a0\u3000\u200c\u200d"


class Terminal(Console):
    """A console without markup. Never hides the cursor, as a signal may end the process."""

    def __init__(self) -> None:
        super().__init__(highlight=False, markup=False, soft_wrap=True)

    def show_cursor(self, show: bool = True) -> bool:
        return super().show_cursor(True)

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(printable(x) if isinstance(x, str) else x for x in objects), **options)


class Report(NamedTuple):
    """A table of measurements, with a description."""

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
    write_text(folder / "report.md", f"# {report.name}\n\n{report.about}\n\n{table}\n")


def show_table(rows: Sequence[Row], headings: Headings = _NAMES) -> None:
    """Prints rows as a table. A row may lack columns."""
    titles, lines = table_cells(rows, headings)
    table = Table(*(escape(printable(x)) for x in titles))
    for line in lines:
        table.add_row(*(escape(printable(x)) for x in line))
    console = Console()
    # Without a terminal the width is unknown, and a table would be cut.
    console.width = max(console.width, 160)
    console.print(table)


def show_text(text: str) -> None:
    """Prints a text of a model. On a terminal, control characters are escaped."""
    print(printable(text, OF_TEXTS) if sys.stdout.isatty() else text)


def write_text(path: Path, text: str) -> None:
    """Writes a text. The error of a full disk names the file."""
    with naming(path):
        path.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Writes JSON, all of it or nothing. Creates the folder. NaN and infinity become null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_plain(content), indent=2, allow_nan=False)
    with whole_file(path) as part:
        part.write_text(text + "\n", encoding="utf-8")


def _plain(content: Any) -> Any:
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
    """The headings of a table and the cells of each row, as texts."""
    columns = _columns(rows)
    titles = [headings.get(column, column.replace("_", " ")) for column in columns]
    return titles, [[_text(row.get(column)) for column in columns] for row in rows]


def markdown_table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Formats a table in Markdown."""
    lines = [headings, ["---"] * len(headings), *lines]
    cells = ([" ".join(x.replace("|", "\\|").split()) for x in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _text(value: Any) -> str:
    match value:
        case None:
            return "–"
        case list():
            return ", ".join(map(_text, value))
        case np.generic():
            return _text(value.item())
        case float():
            return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
        case int() if not isinstance(value, bool):
            return f"{value:,}"
        case _:
            return str(value)


def duration(seconds: float) -> str:
    """Formats a time as `45 s`, `3 min 20 s` or `2 h 5 min`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _columns(rows: Sequence[Row]) -> list[str]:
    return [*dict.fromkeys(column for row in rows for column in row)]
