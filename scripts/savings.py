"""The cost of runs against the cost at which a reference has the same loss.

Reads the rows of `ide-transformer compare`. The reference is a scheme at several budgets.
Between them its loss is linear in the logarithm of the evaluations, for each seed. A ratio of
0.5 means that a contender reached its loss in half of the evaluations.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from commands import start
from ide_transformer import InputError
from ide_transformer.commands.options import results_file
from ide_transformer.reporting import show_table, write_json


EXAMPLES = """\
  python scripts/savings.py "8 layers" runs/compare/growth/results.json \\
      runs/compare/growth_reference/results.json --json savings.json
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("reference", help="the name of a scheme, without its budget")
    parser.add_argument("rows", type=Path, nargs="+", help="files of rows")
    parser.add_argument("--json", type=results_file, help="for the ratios")


def run(options: argparse.Namespace) -> None:
    found = [row for file in options.rows for row in read_rows(file)]
    own = [row for row in found if row["scheme"].split(",")[0] == options.reference]
    curve = Curve(own)
    rows = [curve.saving(row) for row in found if row not in own]
    rows.sort(key=lambda row: row["loss"])
    shown = [{**row, "evaluations": shown_ratio(row, "evaluations")} for row in rows]
    for row in shown:
        del row["half_width"]
    of = "/ those of the reference at the same loss"
    show_table(shown, {name: f"{name} {of}" for name in ("evaluations", "seconds")})
    if options.json:
        write_json(options.json, rows)


def read_rows(file: Path) -> list[dict[str, Any]]:
    found = json.loads(file.read_bytes())
    rows = found["rows"] if isinstance(found, dict) else found
    return [row for row in rows if row.get("seeds")]


class Curve:
    """The losses of a reference by evaluations, for each seed."""

    def __init__(self, rows: list[dict[str, Any]]):
        rows = sorted(rows, key=lambda row: row["field_evaluations"])
        if len(rows) < 2:
            raise InputError(f"The reference has {len(rows)} budgets; give two or more.")
        self.logs = np.log([row["field_evaluations"] for row in rows])
        self.seconds = np.log([row["seconds"] for row in rows])
        self.losses = np.array([row["seeds"] for row in rows])

    def saving(self, row: dict[str, Any]) -> dict[str, Any]:
        """The geometric mean over the seeds, and half of the width of its 95 % interval in
        logarithms. Beyond the budgets of the reference there is no ratio."""
        number = self.losses.shape[1]
        if len(row["seeds"]) != number:
            raise InputError(f"{row['scheme']}: {len(row['seeds'])} seeds, not {number}.")
        reached = []
        times = []
        for loss, losses in zip(row["seeds"], self.losses.T, strict=True):
            if not losses[-1] <= loss <= losses[0]:
                return self._row(row, None, None, None)
            reached.append(np.interp(-loss, -losses, self.logs))
            times.append(np.interp(-loss, -losses, self.seconds))
        logs = np.log(row["field_evaluations"]) - np.array(reached)
        student = special.stdtrit(number - 1, 0.975)
        half = student * logs.std(ddof=1) / np.sqrt(number)
        seconds = np.log(row["seconds"]) - np.mean(times)
        return self._row(row, logs.mean(), half, seconds)

    def _row(self, row: dict[str, Any], mean: Any, half: Any, seconds: Any) -> dict[str, Any]:
        return {
            "scheme": row["scheme"],
            "loss": float(np.mean(row["seeds"])),
            "evaluations": None if mean is None else float(np.exp(mean)),
            "half_width": None if half is None else float(half),
            "seconds": None if seconds is None else float(np.exp(seconds)),
        }


def shown_ratio(row: dict[str, Any], name: str) -> str | None:
    """A ratio with its interval."""
    if row[name] is None:
        return None
    ends = row[name] * np.exp([-row["half_width"], row["half_width"]])
    return f"{row[name]:.2f} [{ends[0]:.2f}, {ends[1]:.2f}]"


if __name__ == "__main__":
    start(sys.modules[__name__])
