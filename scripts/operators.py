"""Trains maps between functions here and by a Fourier neural operator, on the same batches.

`samples`: Darcy's equation from 100, 300 and 900 samples on 16 by 16 points, tested there and
on 32 by 32; here by attention (`ours`), and by a kernel of the difference (`waves`).
`points`: Burgers' and Darcy's equations, trained on a grid or on random points, with quadrature
weights or plain softmax, Darcy's by waves too, tested on points that were never seen; the
Fourier neural operator gets values that are interpolated to its grid.

The learning rate of each line is chosen on validation samples with seed 0. A study that was
stopped continues when it is started again.
"""

import argparse
import functools as ft
import sys
from pathlib import Path
from typing import Any

import numpy as np

from commands import rows, start
from commands.rows import Row
from ide_transformer import InputError
from ide_transformer.commands.options import floats, integers, names
from ide_transformer.compare import fingerprint
from ide_transformer.training.folder.run_folder import checksum_of, source
from operator_learning import fno, ours
from operator_learning.settings import CELLS, TESTS, Cell


CODE = f"{source()}, scripts ({checksum_of(sorted(Path(ours.__file__).parent.glob('*.py')))})"
MODELS: dict[str, Any] = {"ours": ours, "waves": ours, "fno": fno}
EXAMPLES = """\
  python scripts/operators.py samples --json samples.json
  python scripts/operators.py points --beds burgers --json points.json
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", choices=sorted(CELLS))
    rows.add_file(parser)
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/operators"), help="their folder"
    )
    parser.add_argument("--steps", type=int, default=1000, help="of each run (default: 1000)")
    parser.add_argument("--rates", type=floats, default=[1e-3, 3e-3, 9e-3])
    parser.add_argument("--seeds", type=int, default=3, help="their number (default: 3)")
    parser.add_argument("--models", type=names, default=sorted(MODELS))
    parser.add_argument("--beds", type=names, default=["burgers", "darcy"])
    parser.add_argument("--samples", type=integers, help="of that study, for example 900")


def run(options: argparse.Namespace) -> None:
    cells = [
        cell
        for cell in CELLS[options.study]
        if cell.model in options.models
        and cell.bed in options.beds
        and (options.samples is None or cell.options.get("samples") in options.samples)
    ]
    if not cells:
        known = "; ".join(cell.name for cell in CELLS[options.study])
        raise InputError(f"--models, --beds, --samples: no such line; there are {known}.")
    found = [study(cell, options) for cell in cells]
    show(options.study, cells, found)


def study(cell: Cell, options: argparse.Namespace) -> list[Row]:
    """The rows of the best rate, one for each seed."""
    tried = [run_once(cell, rate, 0, options) for rate in options.rates]
    losses = np.nan_to_num([float(row["validation_loss"]) for row in tried], nan=np.inf)
    best = tried[int(np.argmin(losses))]
    seeds = range(1, options.seeds)
    return [best, *(run_once(cell, best["rate"], seed, options) for seed in seeds)]


def run_once(cell: Cell, rate: float, seed: int, options: argparse.Namespace) -> Row:
    """A row of the file, which is computed if it is missing or lacks a test."""
    key = {"name": cell.name, "steps": options.steps, "rate": rate, "seed": seed}
    tests = TESTS[options.study][cell.bed]
    made_by, run_of = MODELS[cell.model], (cell, rate, seed, options.steps)
    data = _data(cell.name, options.study)
    made_of = fingerprint(f"{made_by.settings_of(*run_of)!r} {data}")
    row = rows.find_row(options.json, key, made_of)
    if row is not None and tests.keys() <= row.keys():
        return row
    row = {**key, "made_of": made_of, "code": CODE}
    row |= made_by.train_and_test(*run_of, tests, options.runs)
    rows.write_row(options.json, key, row)
    print({name: round(x, 5) if isinstance(x, float) else x for name, x in row.items()})
    return row


@ft.cache
def _data(name: str, study: str) -> str:
    """The fingerprints of the data of a line and of its tests."""
    cell = next(cell for cell in CELLS[study] if cell.name == name)
    tasks = (cell.task(), *map(cell.task, TESTS[study][cell.bed].values()))
    return " ".join(task.fingerprint() for task in tasks)


def show(study: str, cells: list[Cell], found: list[list[Row]]) -> None:
    """A table for each bed: means over the seeds and their standard deviations."""
    tables: dict[str, list[Row]] = {}
    for cell, own in zip(cells, found, strict=True):
        line: Row = {"model": cell.model, **cell.options, "rate": own[0]["rate"]}
        for name in ("validation_loss", *TESTS[study][cell.bed]):
            values = np.array([row[name] for row in own], float)
            spread = f" ± {np.std(values, ddof=1):.4f}" if len(own) > 1 else ""
            line[name] = f"{np.mean(values):.4f}{spread}"
        line["parameters"] = own[0]["parameters"]
        line["seconds"] = f"{np.mean([row['seconds'] for row in own]):.0f}"
        tables.setdefault(cell.bed, []).append(line)
    rows.show(tables)


if __name__ == "__main__":
    start(sys.modules[__name__])
