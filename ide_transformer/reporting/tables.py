"""Rows with the same columns, printed and written to files."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table


Row = Mapping[str, Any]


class Report(NamedTuple):
    """A table of measurements, and what was measured."""

    name: str
    about: str
    rows: list[dict[str, Any]]


def write_report(folder: Path, report: Report) -> None:
    """Writes `report.md`, `report.csv` and `report.json` into `folder`."""
    write_json(folder / "report.json", {"about": report.about, "rows": report.rows})
    with (folder / "report.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _columns(report.rows))
        writer.writeheader()
        writer.writerows(report.rows)
    text = f"# {report.name}\n\n{report.about}\n\n{_markdown(report.rows)}"
    (folder / "report.md").write_text(text, encoding="utf-8")


def show_table(rows: Sequence[Row]) -> None:
    """Prints rows as a table; a row may lack a column."""
    table = Table(*_headings(rows))
    for row in rows:
        table.add_row(*_cells(row, rows))
    console = Console()
    # Where the output is no terminal its width is unknown; a table should not be cut.
    console.width = max(console.width, 160)
    console.print(table)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON, all of it or nothing, and makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_name(f"{path.name}.tmp")
    written.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    written.replace(path)


def _markdown(rows: Sequence[Row]) -> str:
    headings = _headings(rows)
    lines = [headings, ["---"] * len(headings)]
    lines += [_cells(row, rows) for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cells(row: Row, rows: Sequence[Row]) -> list[str]:
    return [_text(row.get(column)) for column in _columns(rows)]


def _text(value: Any) -> str:
    """A cell of a table."""
    match value:
        case None:
            return "–"
        case list():
            return ", ".join(map(_text, value))
        case float():
            return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
        case int():
            return f"{value:,}"
        case _:
            return str(value)


def _headings(rows: Sequence[Row]) -> list[str]:
    return [column.replace("_", " ") for column in _columns(rows)]


def _columns(rows: Sequence[Row]) -> list[str]:
    """Of all rows, in the order in which they first occur."""
    return [*dict.fromkeys(column for row in rows for column in row)]
