"""The report of a comparison: the same rows as Markdown, CSV and JSON."""

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

from .tables import as_text, show_table


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
    show_table(report.rows)
