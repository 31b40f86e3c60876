"""Trains maps between functions here and by a Fourier neural operator, on the same batches.

`samples`: Darcy's equation from 100, 300 and 900 samples on 16 by 16 points, tested there and
on 32 by 32; here by attention (`ours`), and by a kernel of the difference (`waves`).
`points`: Burgers' and Darcy's equations, trained on a grid or on random points, with quadrature
weights or plain softmax, Darcy's by waves too, tested on points that were never seen; the
Fourier neural operator gets values that are interpolated to its grid.

The learning rate of each line is chosen on validation samples with seed 0, then the other seeds
are run. A study that was stopped goes on when it is started again.
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
from ide_transformer.studies import fingerprint
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
    rows.add_files(parser, "operators")
    parser.add_argument("--steps", type=int, default=1000, help="of each run (default: 1000)")
    parser.add_argument("--rates", type=floats, default=[1e-3, 3e-3, 9e-3])
    parser.add_argument("--seeds", type=int, default=3, help="so many (default: 3)")
    parser.add_argument("--models", type=names, default=sorted(MODELS))
    parser.add_argument("--beds", type=names, default=["burgers", "darcy"])
    parser.add_argument("--samples", type=integers, help="of that study, for example 900")


def run(arguments: argparse.Namespace) -> None:
    if arguments.seeds < 1:
        raise InputError(f"--seeds {arguments.seeds}: give 1 or more.")
    cells = [
        cell
        for cell in CELLS[arguments.study]
        if cell.model in arguments.models
        and cell.bed in arguments.beds
        and (arguments.samples is None or cell.options.get("samples") in arguments.samples)
    ]
    beds = {cell.bed for study in CELLS.values() for cell in study}
    for given, known in ((arguments.models, {*MODELS}), (arguments.beds, beds)):
        if wrong := sorted({*given} - known):
            raise InputError(f"{wrong[0]}: it must be one of {', '.join(sorted(known))}.")
    if not cells:
        known = "; ".join(cell.name for cell in CELLS[arguments.study])
        raise InputError(f"--models, --beds, --samples: no such line; there are {known}.")
    # The first seed of every line comes first, so that a table is there early.
    for seeds in range(1, arguments.seeds + 1):
        found = [study(cell, arguments, seeds) for cell in cells]
    show(arguments.study, cells, found)


def study(cell: Cell, arguments: argparse.Namespace, seeds: int) -> tuple[list[Row], list[Row]]:
    """The rows of all rates with seed 0, and those of the best of them with all seeds."""
    tried = [run_once(cell, rate, 0, arguments) for rate in arguments.rates]
    best = min(tried, key=_loss)
    others = (run_once(cell, best["rate"], seed, arguments) for seed in range(1, seeds))
    return tried, [best, *others]


def run_once(cell: Cell, rate: float, seed: int, arguments: argparse.Namespace) -> Row:
    """A row of the file; it is computed where it is not there, or lacks a test."""
    key = {"name": cell.name, "steps": arguments.steps, "rate": rate, "seed": seed}
    tests = TESTS[arguments.study][cell.bed]
    made_by, run_of = MODELS[cell.model], (cell, rate, seed, arguments.steps)
    data = _data(cell.name, arguments.study)
    made_of = fingerprint(f"{made_by.settings_of(*run_of)!r} {data}")
    row = rows.find_row(arguments.json, key, made_of)
    if row is not None and tests.keys() <= row.keys():
        return row
    row = {**key, "made_of": made_of, "code": CODE}
    row |= made_by.train_and_test(*run_of, tests, arguments.runs)
    rows.write_row(arguments.json, key, row)
    print({name: round(x, 5) if isinstance(x, float) else x for name, x in row.items()})
    return row


@ft.cache
def _data(name: str, study: str) -> str:
    """The fingerprints of the data of a line and of its tests."""
    cell = next(cell for cell in CELLS[study] if cell.name == name)
    tasks = (cell.task(), *map(cell.task, TESTS[study][cell.bed].values()))
    return " ".join(task.fingerprint() for task in tasks)


def _loss(row: dict[str, Any]) -> float:
    """Of a run that diverged more than of any other."""
    return float(np.nan_to_num(np.array(row["validation_loss"], float), nan=np.inf))


def show(study: str, cells: list[Cell], found: list[tuple[list[Row], list[Row]]]) -> None:
    """A table for each bed: means over the seeds and their standard deviations."""
    tables: dict[str, list[Row]] = {}
    made: list[tuple[str, str]] = []
    for cell, (tried, own) in zip(cells, found, strict=True):
        for row in (*tried, *own[1:]):
            run = f"{row['name']} {row['rate']:g} seed {row['seed']}"
            made.append((run, row.get("code", "not recorded")))
        line: Row = {"model": cell.model, **cell.options, "rate": own[0]["rate"]}
        for name in ("validation_loss", *TESTS[study][cell.bed]):
            values = np.array([row[name] for row in own], float)
            spread = f" ± {np.std(values, ddof=1):.4f}" if len(own) > 1 else ""
            line[name] = f"{np.mean(values):.4f}{spread}"
        line["parameters"] = own[0]["parameters"]
        line["seconds"] = f"{np.mean([row['seconds'] for row in own]):.0f}"
        tables.setdefault(cell.bed, []).append(line)
    rows.show(tables, made)


if __name__ == "__main__":
    start(sys.modules[__name__])
