"""Rows of equal columns, printed and written to files."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


Row = Mapping[str, Any]


def show_table(rows: Sequence[Row]) -> None:
    """Prints rows with the same columns."""
    table = Table(*_headings(rows))
    for row in rows:
        table.add_row(*map(as_text, row.values()))
    console = Console()
    # Where the output is no terminal its width is unknown; a table should not be cut.
    console.width = max(console.width, 160)
    console.print(table)


def write_json(path: Path, content: Any) -> None:
    """Writes rows, or whatever JSON can say, and makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Writes rows with the same columns."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def markdown_table(rows: Sequence[Row]) -> str:
    """Rows with the same columns as a table in Markdown."""
    headings = _headings(rows)
    lines = [headings, ["---"] * len(headings)]
    lines += [[as_text(value) for value in row.values()] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_text(value: Any) -> str:
    """A cell of a table."""
    match value:
        case None:
            return "–"
        case list():
            return ", ".join(map(as_text, value))
        case float():
            return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
        case int():
            return f"{value:,}"
        case _:
            return str(value)


def _headings(rows: Sequence[Row]) -> list[str]:
    return [column.replace("_", " ") for column in rows[0]]
