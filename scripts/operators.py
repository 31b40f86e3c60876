"""Trains maps between functions by models of this package and by the Fourier neural operator of
pdequinox, on the same batches.

`samples`: Darcy's equation from 100, 300 and 900 samples on 16 by 16 points, tested there and
on 32 by 32; by attention (`ours`), by a kernel of the difference (`waves`), and by `fno`.
`points`: Burgers' and Darcy's equations, trained on a grid or on random points, with quadrature
weights or plain softmax, Darcy's by waves too, tested on points that were never seen; `fno` is
trained and tested on the grid.

The learning rate of each line is chosen on validation samples with seed 0. A study that was
stopped continues when it is started again.
"""

import argparse
import functools as ft
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from commands import rows, start
from commands.rows import Row
from ide_transformer import InputError, training
from ide_transformer.commands.options import config_file, floats, integers, names
from ide_transformer.compare import fingerprint
from ide_transformer.compare.baselines import baseline_of
from ide_transformer.contrib import Darcy
from ide_transformer.tasks import AbstractTask, BurgersInterval
from ide_transformer.training.folder.run_folder import checksum_of, source


CODE = f"{source()}, script ({checksum_of([Path(__file__)])})"
EXAMPLES = """\
  python scripts/operators.py samples --json samples.json
  python scripts/operators.py points --beds burgers --json points.json
"""
MODELS = ["fno", "ours", "waves"]
TASKS: dict[str, Callable[..., AbstractTask]] = {"burgers": BurgersInterval, "darcy": Darcy}
CONTEXTS = {"burgers": 32, "darcy": 16}
FNO = {
    "burgers": "fno:num_modes=12:modes=1:weight_decay=1e-4",
    "darcy": "fno:num_modes=8:modes=1:weight_decay=1e-4",
}


class Test(NamedTuple):
    """Test functions at other points: the context and the options of the task."""

    context: int
    options: dict[str, Any]


class Cell(NamedTuple):
    """A line of a table."""

    model: str  # ours, waves or fno
    bed: str  # burgers or darcy
    options: dict[str, Any]  # of the task in training

    @property
    def name(self) -> str:
        settings = "_".join(f"{key}_{value}" for key, value in sorted(self.options.items()))
        return f"{self.model}_{self.bed}_{settings}"

    def task(self, test: Test | None = None) -> AbstractTask:
        """The data of training, or of a test."""
        context, options = test or (CONTEXTS[self.bed], {})
        return TASKS[self.bed](context=context, **{**self.options, **options})

    def tests(self, study: str) -> dict[str, Test]:
        """The tests of a study, by their names."""
        tests = TESTS[study][self.bed]
        on_grids = {name: x for name, x in tests.items() if x.options == GRID}
        return on_grids if self.model == "fno" else tests


GRID, RANDOM = {"points": "grid"}, {"points": "random"}
PLAIN = {"weights": "equal"}
LINES = [
    *(("ours", x) for x in (GRID, {**RANDOM, "weights": "quadrature"}, {**RANDOM, **PLAIN})),
    ("fno", GRID),
]
# Waves are for a torus.
WAVES = [("waves", GRID), ("waves", RANDOM)]
# By study: the lines of its tables.
CELLS = {
    "samples": [
        Cell(model, "darcy", {"samples": samples})
        for samples in (100, 300, 900)
        for model in ("ours", "waves", "fno")
    ],
    "points": [
        Cell(model, bed, options)
        for bed, lines in (("burgers", LINES), ("darcy", [*LINES, *WAVES]))
        for model, options in lines
    ],
}
CLUSTERED = {"points": "clustered"}
# By study and bed: the tests.
TESTS = {
    "samples": {"darcy": {"16²": Test(16, GRID), "32²": Test(32, GRID)}},
    "points": {
        "burgers": {
            "grid": Test(32, GRID),
            "scattered": Test(32, RANDOM),
            "clustered": Test(32, CLUSTERED),
            "clustered, plain": Test(32, {**CLUSTERED, **PLAIN}),
        },
        "darcy": {
            "grid": Test(16, GRID),
            "scattered": Test(16, {**RANDOM, "subset": 128}),
            "clustered": Test(16, {**CLUSTERED, "subset": 128}),
            "clustered, plain": Test(16, {**CLUSTERED, "subset": 128, **PLAIN}),
            "scattered, finer": Test(32, {**RANDOM, "subset": 256}),
            "clustered, finer": Test(32, {**CLUSTERED, "subset": 256}),
            "clustered, finer, plain": Test(32, {**CLUSTERED, "subset": 256, **PLAIN}),
        },
    },
}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", choices=sorted(CELLS))
    rows.add_file(parser)
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/operators"), help="their folder"
    )
    parser.add_argument("--steps", type=int, default=1000, help="of each run (default: 1000)")
    parser.add_argument("--rates", type=floats, default=[1e-3, 3e-3, 9e-3])
    parser.add_argument("--seeds", type=int, default=3, help="their number (default: 3)")
    parser.add_argument("--models", type=names, default=MODELS)
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
        names_of_lines = "; ".join(cell.name for cell in CELLS[options.study])
        raise InputError(
            f"--models, --beds, --samples: no such line; there are {names_of_lines}."
        )
    cell_rows = [study(cell, options) for cell in cells]
    show(options.study, cells, cell_rows)


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
    tests = cell.tests(options.study)
    settings = settings_of(cell, rate, seed, options.steps)
    made_of = fingerprint(f"{settings!r} {_data(cell.name, options.study)}")
    row = rows.find_row(options.json, key, made_of)
    if row is not None and tests.keys() <= row.keys():
        return row
    row = {**key, "made_of": made_of, "code": CODE}
    row |= train_and_test(cell, settings, tests, options.runs)
    rows.write_row(options.json, key, row)
    print({name: round(x, 5) if isinstance(x, float) else x for name, x in row.items()})
    return row


def train_and_test(
    cell: Cell, settings: training.Config, tests: dict[str, Test], runs: Path
) -> dict[str, Any]:
    """Trains a run, or resumes it, and returns its errors, parameters and seconds."""
    path = runs / settings.name
    if not (path / "summary.json").is_file():
        training.train(settings, runs=runs, resume=path.exists())
    loaded = training.load_model(path)
    summary = training.RunFolder(path).load_summary()
    errors = {
        name: training.evaluate_on(loaded.model, cell.task(test), None, "test")["loss"]
        for name, test in tests.items()
    }
    # The number of compiled programs that a process may hold is limited.
    jax.clear_caches()
    figures = {key: summary[key] for key in ("validation_loss", "parameters", "seconds")}
    return {**figures, **errors}


def settings_of(cell: Cell, rate: float, seed: int, steps: int) -> training.Config:
    """The configuration of a run."""
    options = ", ".join(f"{key}: {value}" for key, value in cell.options.items())
    name = f"{cell.name}_{rate:g}_{seed}_{steps}"
    overrides = [
        *(f"name={name}", f"data.options={{{options}}}", f"optimizer.learning_rate={rate}"),
        *(f"training.steps={steps}", f"training.seed={seed}", "training.keep_best=false"),
        *(f"optimizer.warmup={min(100, steps // 5)}", f"training.evaluate_every={steps}"),
        f"training.checkpoint_every={steps}",
    ]
    waves = "_waves" if cell.model == "waves" else ""
    config = training.load_config(config_file(f"{cell.bed}{waves}"), overrides)
    return baseline_of(FNO[cell.bed], config).config if cell.model == "fno" else config


@ft.cache
def _data(name: str, study: str) -> str:
    """The fingerprints of the data of a line and of its tests."""
    cell = next(cell for cell in CELLS[study] if cell.name == name)
    tasks = (cell.task(), *map(cell.task, cell.tests(study).values()))
    return " ".join(task.fingerprint() for task in tasks)


def show(study: str, cells: list[Cell], cell_rows: list[list[Row]]) -> None:
    """A table for each bed: means over the seeds and their standard deviations."""
    tables: dict[str, list[Row]] = {}
    for cell, seed_rows in zip(cells, cell_rows, strict=True):
        line: Row = {"model": cell.model, **cell.options, "rate": seed_rows[0]["rate"]}
        for name in ("validation_loss", *cell.tests(study)):
            values = np.array([row[name] for row in seed_rows], float)
            spread = f" ± {np.std(values, ddof=1):.4f}" if len(seed_rows) > 1 else ""
            line[name] = f"{np.mean(values):.4f}{spread}"
        line["parameters"] = seed_rows[0]["parameters"]
        line["seconds"] = f"{np.mean([row['seconds'] for row in seed_rows]):.0f}"
        tables.setdefault(cell.bed, []).append(line)
    rows.show(tables)


if __name__ == "__main__":
    start(sys.modules[__name__])
