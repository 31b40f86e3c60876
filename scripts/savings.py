"""Measures the cost at which schemes reach the loss of a reference.

Reads reports of `ide-transformer compare` in which schemes have several budgets in field
evaluations or floating-point operations. Between its budgets the loss of a scheme is linear in
the logarithm of the cost, for each seed. A ratio of 0.5 means that a scheme reached the loss of
the reference at half of the cost.
"""

import argparse
import json
import re
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
  python scripts/savings.py "8 layers" runs/compare/growth/report.json \\
      runs/compare/growth_less/report.json --json savings.json
"""
Row = dict[str, Any]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("reference", help="the name of a row")
    parser.add_argument("rows", type=Path, nargs="+", help="files of rows")
    parser.add_argument("--json", type=results_file, help="for the ratios")


def run(options: argparse.Namespace) -> None:
    schemes: dict[str, list[Row]] = {}
    rows = [row for file in options.rows for row in json.loads(file.read_bytes())["rows"]]
    for row in rows:
        name = re.sub(r", [\d.e+]+ (field evaluations|flops)$", "", row["scheme"])
        schemes.setdefault(name, []).append(row)
    rows_by_name = {row["scheme"]: row for row in rows}
    reference = rows_by_name.get(options.reference)
    if reference is None:
        raise InputError(
            f"{options.reference}: no such row; there are {', '.join(rows_by_name)}."
        )
    savings = [
        saving(name, scheme_rows, reference)
        for name, scheme_rows in schemes.items()
        if reference not in scheme_rows
    ]
    show_table([{**row, "cost": describe_ratio(row)} for row in savings])
    if options.json:
        write_json(options.json, savings)


def saving(name: str, rows: list[Row], reference: Row) -> Row:
    """The ratio of the cost (and seconds) at which a scheme has the loss of the reference, to
    the cost of the reference: geometric means over seeds, and the 95 % interval of the cost. A
    loss beyond the budgets of the scheme has no ratio."""
    unit = "flops" if "flops" in reference else "field_evaluations"
    rows = sorted(rows, key=lambda row: row[unit])
    costs = np.log([[row[unit], row["seconds"]] for row in rows])
    reference_costs = np.log([reference[unit], reference["seconds"]])
    losses = np.array([row["seeds"] for row in rows])
    ratios = []
    for curve, loss in zip(losses.T, reference["seeds"], strict=True):
        if len(rows) < 2 or not curve[-1] <= loss <= curve[0]:
            return {"scheme": name, "cost": None, "interval": None, "seconds": None}
        ratios.append([np.interp(-loss, -curve, x) for x in costs.T] - reference_costs)
    mean = np.mean(ratios, axis=0)
    num_seeds = len(ratios)
    spread = np.std([x for x, _ in ratios], ddof=1) / np.sqrt(num_seeds)
    half = special.stdtrit(num_seeds - 1, 0.975) * spread
    return {
        "scheme": name,
        "cost": float(np.exp(mean[0])),
        "interval": np.exp([mean[0] - half, mean[0] + half]).tolist(),
        "seconds": float(np.exp(mean[1])),
    }


def describe_ratio(row: Row) -> str | None:
    if row["interval"] is None:
        return None
    return "{:.2f} [{:.2f}, {:.2f}]".format(row["cost"], *row["interval"])


if __name__ == "__main__":
    start(sys.modules[__name__])
