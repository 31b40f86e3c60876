"""The report of a comparison: the same rows as Markdown, CSV and JSON."""

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table


class Report(NamedTuple):
    """A table of measurements, one row for each scheme, and what was measured.

    - `held_out`: the name of the column by which schemes are judged.
    """

    name: str
    about: str
    rows: list[dict[str, Any]]
    held_out: str


def write_report(folder: Path, report: Report) -> None:
    """Writes `report.md`, `report.csv` and `report.json` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = list(report.rows[0])
    text = json.dumps({"about": report.about, "rows": report.rows}, indent=2)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    with (folder / "report.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(report.rows)
    lines = [
        f"# {report.name}",
        "",
        report.about,
        "",
        "| " + " | ".join(column.replace("_", " ") for column in columns) + " |",
        "|" + "---|" * len(columns),
        *("| " + " | ".join(map(as_text, row.values())) + " |" for row in report.rows),
    ]
    (folder / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def show_report(report: Report) -> None:
    """Prints the table."""
    table = Table(*(column.replace("_", " ") for column in report.rows[0]))
    for row in report.rows:
        table.add_row(*map(as_text, row.values()))
    console = Console()
    # Where the output is no terminal its width is unknown; a table should not be cut.
    console.width = max(console.width, 160)
    console.print(table)


def as_text(value: Any) -> str:
    """A cell of a table."""
    if value is None:
        return "–"
    if isinstance(value, list):
        return ", ".join(map(as_text, value))
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
