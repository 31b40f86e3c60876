from pathlib import Path
from typing import Any, NamedTuple

from .tables import markdown_table, write_csv, write_json


class Report(NamedTuple):
    """A table of measurements, and what was measured."""

    name: str
    about: str
    rows: list[dict[str, Any]]


def write_report(folder: Path, report: Report) -> None:
    """Writes `report.md`, `report.csv` and `report.json` into `folder`."""
    write_json(folder / "report.json", {"about": report.about, "rows": report.rows})
    write_csv(folder / "report.csv", report.rows)
    text = f"# {report.name}\n\n{report.about}\n\n{markdown_table(report.rows)}"
    (folder / "report.md").write_text(text, encoding="utf-8")
