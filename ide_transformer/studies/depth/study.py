"""Tables and figures of every way to solve a run or a checkpoint over depth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...figures import Curve, plot_panels
from ...reporting import Report, Terminal, write_report
from ...training import load_model
from .budget import Budget
from .measure import CoarseningStudy, measure_coarsening
from .problem import Problem, make_problem


def study_coarsening(
    path: str,
    folder: Path,
    *,
    calibration: int,
    held_out: int,
    minutes: float | None = None,
    trust: bool = False,
) -> list[Report]:
    """Coarsens and refines the run or checkpoint in `path`, compares it with dropping layers by
    the rules in use, and writes tables and figures into `folder`.

    **Arguments:**

    - `calibration`, `held_out`: samples to choose and fit by, and to measure on.
    - `minutes`: the time for it, by which the search is cut; `None` for no limit.
    - `trust`: see `load_run`.
    """
    for name, size in (("calibration", calibration), ("held_out", held_out)):
        if size < 1:
            raise InputError(f"study_coarsening: {name}={size}; give it at least one sample.")
    console = Terminal()
    budget = Budget(minutes, lambda line: console.print(line, markup=False))
    loaded = load_model(path, trust=trust)
    if loaded.model.ordinary.control.num_intervals < 2:
        raise InputError(f"{path}: its model has one layer, of which none can be left out.")
    problem = make_problem(loaded, calibration, held_out)
    console.print(f"loss: {problem.loss}", markup=False)
    study = measure_coarsening(loaded.model.ordinary, problem, budget=budget)
    reports = _reports(path, problem, study)
    for report, name in zip(reports, ("", "budgets", "layers"), strict=True):
        write_report(folder / name, report)
    plot_methods(folder, study.rows)
    return reports


def _reports(path: str, problem: Problem, study: CoarseningStudy) -> list[Report]:
    name, (chosen_on, measured_on) = Path(path).name, problem.sizes
    cut = f" There was no time for all of: {', '.join(study.left_out)}." * bool(study.left_out)
    ranks = study.ranking.correlations.items()
    return [
        Report(
            f"depth of {name}",
            f"The weights of {path} with fewer and with more field evaluations. Steps were "
            f"chosen and fitted on {chosen_on} samples without their targets. Error (of what "
            "the loss reads of the outputs, relative to the native solve) and loss "
            f"({problem.loss}) are those of {measured_on} held-out samples. Change is that of "
            "the loss against the native one. Uncertainty is its standard error over the "
            f"samples, which are the same for both.{cut}",
            study.rows,
        ),
        Report(
            f"budgets of {name}",
            "At each number of field evaluations the best coarsening against the best rule "
            "that drops layers. Difference is its loss minus that of the rule, with its "
            "standard error over the samples. Both are the best on these samples, and the "
            "standard error does not know of that choice.",
            study.budgets,
        ),
        Report(
            f"layers of {name}",
            "Defects of each layer, the error that the equation predicts from leaving it out "
            "(estimate), and the error that this makes (damage). Spearman's correlation with "
            f"it: {', '.join(f'{name} {value:.2f}' for name, value in ranks)}.",
            study.ranking.layers,
        ),
    ]


def plot_methods(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes `error.png` and `loss.png` into `folder`: a line for each method in the rows of
    a `CoarseningStudy`, from the native solve on, a point for each budget. Solves with fewer
    evaluations have a panel of their own."""
    for quantity, label in (("error", "relative error of the outputs"), ("loss", "loss")):
        measured = [row for row in rows if row[quantity] is not None]
        points: dict[str, dict[float, list[float]]] = {}
        for row in measured:
            # Of the random choices the mean.
            method = "random (mean)" if row["method"].startswith("random") else row["method"]
            budgets = points.setdefault(method, {})
            budgets.setdefault(row["field_evaluations"], []).append(row[quantity])
        ((native, start),) = points.pop("native").items()
        panels: dict[str, list[Curve]] = {}
        for method, budgets in points.items():
            few = max(budgets) < native
            title = f"{'fewer' if few else 'more'} evaluations than the native {native:g}"
            budgets = {native: start, **dict(sorted(budgets.items(), reverse=few))}
            means = [np.mean(values) for values in budgets.values()]
            panels.setdefault(title, []).append(Curve(method, list(budgets), means))
        if not panels:
            continue  # no time was left
        path = folder / f"{quantity}.png"
        plot_panels(path, panels, x="field evaluations", y=label, marker="o")
