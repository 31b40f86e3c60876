"""Studies a trained model with fewer and with more field evaluations, and layer by layer."""

import functools as ft
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ide_transformer.arguments import PositiveInt, checked
from ide_transformer.compare import Data, Measured, judge, measure, solved, standard_error
from ide_transformer.contrib.depth_problem import Problem, make_problem
from ide_transformer.contrib.layers import MOVES, drops, mergers, selections
from ide_transformer.contrib.meshes import Target, coarsenings, extrapolated, refine
from ide_transformer.contrib.step_defects import defects, removal_estimate
from ide_transformer.dynamics import keep_layers
from ide_transformer.errors import InputError
from ide_transformer.figures import Curve, plot_panels
from ide_transformer.models import Model
from ide_transformer.reporting import Report, Terminal, write_report
from ide_transformer.training import load_model


# Methods and their options of `coarsenings`.
COARSENINGS: dict[str, dict[str, Any]] = {
    "coarsened": dict(moves=MOVES),
    "dropped": dict(moves=(selections, drops), fit=None),
    "merged": dict(moves=(mergers,), fit=None),
}

Rows = list[dict[str, Any]]
# Predictions for each layer by name, `[intervals]`.
Columns = dict[str, np.ndarray]
# From columns and a number of layers to the layers to keep.
Rule = Callable[[Columns, int], np.ndarray]


class CoarseningStudy(NamedTuple):
    """Measurements on the held-out batch.

    - `rows`: for each method and budget, the native solve first: `method`,
      `field_evaluations`, `loss`, `change` (of the loss), `uncertainty` (the standard error of
      the change over samples), `error` (relative to the native outputs) and `layers`.
    - `budgets`: coarsening against dropping layers, see `compare_budgets`.
    - `layers`: the `Defects` of each native layer, and the error of leaving it out, predicted
      (`estimate`) and measured (`damage`).
    - `correlations`: Spearman's rank correlation of each column of `layers` with `damage`.
    """

    rows: Rows
    budgets: Rows
    layers: Rows
    correlations: dict[str, float]


@checked
def study_coarsening(
    path: str,
    folder: Path,
    *,
    calibration: PositiveInt,
    held_out: PositiveInt,
    trust: bool = False,
    text: str | None = None,
) -> list[Report]:
    """Coarsens and refines the run or checkpoint in `path`, compares with the usual rules that
    drop layers, and writes tables and figures into `folder`. Steps are chosen and fitted on
    `calibration` samples, and measured on `held_out` samples. `text`: see `make_problem`."""
    say = Terminal().print
    loaded = load_model(path, trust=trust)
    if loaded.model.ordinary.control.layers < 2:
        raise InputError(f"{path}: its model has one layer, so none can be left out.")
    problem = make_problem(loaded, calibration, held_out, text=text)
    say(f"loss: {problem.loss}")
    study = measure_coarsening(loaded.model.ordinary, problem, say=say)
    name = Path(path).name
    chosen_on, measured_on = problem.sizes
    ranks = (f"{column} {value:.2f}" for column, value in study.correlations.items())
    reports = [
        Report(
            f"depth of {name}",
            f"The weights of {path} with fewer and with more field evaluations. Steps were "
            f"chosen and fitted on {chosen_on} samples without targets; error and loss "
            f"({problem.loss}) are measured on {measured_on} held-out samples. The error is of "
            "what the loss reads, relative to the native solve. Change is the loss minus the "
            "native loss; uncertainty is its standard error over samples.",
            study.rows,
            {
                "change": "change of the loss",
                "uncertainty": "standard error of the change",
                "error": "relative error",
                "layers": "layers of each step",
            },
        ),
        Report(
            f"budgets of {name}",
            "At each number of field evaluations the best coarsening against the best rule "
            "that drops layers. Difference is the first loss minus the second. Both are the "
            "best on these samples; the standard error over samples does not count that.",
            study.budgets,
            {
                "coarsening": "best coarsening",
                "loss": "loss of the coarsening",
                "layer_dropping": "best rule that drops layers",
                "its_loss": "loss of the rule",
                "difference": "difference of the losses",
                "uncertainty": "standard error of the difference",
            },
        ),
        Report(
            f"layers of {name}",
            "Defects of each layer, and the error of leaving it out, predicted by the equation "
            "(estimate) and measured (damage). Spearman's correlation with the damage: "
            f"{', '.join(ranks)}.",
            study.layers,
            {
                "state": "size of the state",
                "increment": "relative size of the increment",
                "turn": "1 - cosine of the states before and after",
                "alignment": "cosine to the increment before",
                "step_doubling": "local error by step doubling",
                "splitting": "difference of Strang and Lie–Trotter",
                "commutator": "size of the commutator",
                "estimate": "estimated error of leaving it out",
                "damage": "measured error of leaving it out",
            },
        ),
    ]
    for report, name in zip(reports, ("", "budgets", "layers"), strict=True):
        write_report(folder / name, report)
    plot_methods(folder, study.rows)
    return reports


def measure_coarsening(
    model: Model,
    problem: Problem,
    *,
    refinements: Sequence[int] = (2, 4),
    say: Callable[[str], None] = lambda line: None,
) -> CoarseningStudy:
    """Solves a model natively, coarser (down to half its evaluations), finer (with
    `refinements` steps in each interval), and with layers dropped by the usual rules. `say` is
    called as each part begins."""
    outputs = model.outputs(solved(model, problem.held_out)[0])
    target = Target(problem.held_out, outputs, problem.read)
    data = Data(
        problem.held_out,
        problem.losses,
        error=lambda u1, outputs: target.output_error(model, outputs),
    )
    native = measure(model, data)
    rows: Rows = []
    losses: list[np.ndarray] = []

    def add(method: str, found: Measured, layers: str = "") -> None:
        change = found.losses - native.losses
        figures = {
            "loss": found.loss,
            "change": float(np.mean(change)),
            "uncertainty": standard_error(change),
            "error": found.error,
        }
        if not np.isfinite(found.error):  # the solve failed
            figures = dict.fromkeys(figures)
        row = {"method": method, "field_evaluations": found.evaluations}
        rows.append({**row, **figures, "layers": layers})
        losses.append(found.losses)

    keep = ft.cache(lambda layers: measure(keep_layers(model, layers), data))
    refined = ft.cache(lambda steps: measure(refine(model, steps), data))
    add("native", native)
    number = model.layers
    few = range(number - 1, math.ceil(number / 2) - 1, -1)
    say("layers")
    columns = layer_columns(model, problem)
    every = range(number)
    damage = np.array([keep((*every[:i], *every[i + 1 :])).error for i in every])
    say("rules that drop layers")
    for name, rule in (NEEDED | RULES).items():
        for kept in few:
            layers = tuple(rule(columns, kept).tolist())
            add(name, keep(layers), " ".join(map(str, layers)))
    for name, options in COARSENINGS.items():
        say(name)
        meshes = coarsenings(model, problem.calibration, read=problem.read, **options)
        for coarse in itertools.islice(meshes, 1, len(few) + 1):
            # An interval with operators of layers 2 and 3 is 2/3.
            steps = " ".join("/".join(dict.fromkeys(interval)) for interval in coarse.steps)
            add(name, measure(coarse.model, data), steps)
    for k in refinements:
        say(f"refined, {k} steps")
        coarse, fine = refined(k), refined(2 * k)
        add("refined", coarse)
        u1 = extrapolated(model, coarse.u1, fine.u1)
        add("extrapolated", judge(model, u1, coarse.evaluations + fine.evaluations, data))
    ranks = {name: spearman(column, damage) for name, column in columns.items()}
    of_layers: Rows = [{"layer": layer} for layer in every]
    for name, column in {**columns, "damage": damage}.items():
        for row, x in zip(of_layers, column.tolist(), strict=True):
            row[name] = x if np.isfinite(x) else None
    return CoarseningStudy(rows, compare_budgets(rows, losses), of_layers, ranks)


def layer_columns(model: Model, problem: Problem) -> Columns:
    """The defects of each layer, and the estimated error of leaving it out. They vary little
    between samples, so 64 are enough."""
    inputs = jax.tree.map(lambda x: x[:64], problem.calibration)
    found = defects(model, inputs)._asdict()
    found["estimate"] = removal_estimate(model, inputs, problem.read)
    return {name: np.asarray(column) for name, column in found.items()}


def compare_budgets(rows: Rows, losses: Sequence[np.ndarray]) -> Rows:
    """For each number of field evaluations the best coarsening and the best rule that drops
    layers: their losses, `difference`, and `uncertainty`, its standard error over samples.
    `losses` has the losses of all samples for each row."""
    table = []
    solves = [pair for pair in zip(rows, losses, strict=True) if pair[0]["loss"] is not None]
    for budget in sorted({row["field_evaluations"] for row in rows}, reverse=True):
        own = [pair for pair in solves if pair[0]["field_evaluations"] == budget]
        ours = [pair for pair in own if pair[0]["method"] in COARSENINGS | NEEDED]
        theirs = [pair for pair in own if pair[0]["method"] in RULES]
        if not ours or not theirs:
            continue
        row, loss = min(ours, key=lambda pair: pair[0]["loss"])
        other, its = min(theirs, key=lambda pair: pair[0]["loss"])
        table.append(
            {
                "field_evaluations": budget,
                "coarsening": row["method"],
                "loss": row["loss"],
                "layer_dropping": other["method"],
                "its_loss": other["loss"],
                "difference": float(np.mean(loss - its)),
                "uncertainty": standard_error(loss - its),
            }
        )
    return table


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation of the finite pairs; NaN if it is not defined."""
    from scipy.stats import rankdata  # slow to import

    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


def _most(name: str) -> Rule:
    return lambda columns, kept: np.sort(np.argsort(-columns[name], kind="stable")[:kept])


def _at_random(seed: int) -> Rule:
    """Keeps random layers; fewer are a subset of more."""
    return lambda columns, kept: np.sort(
        np.random.default_rng(seed).permutation(len(columns["estimate"]))[:kept]
    )


def _evenly(columns: Columns, kept: int) -> np.ndarray:
    """Keeps layers evenly spread, with the first and the last. Reference: Sajjad et al.,
    arXiv 2004.03844."""
    return np.linspace(0, len(columns["estimate"]) - 1, kept).round().astype(int)


# The rule by the equation, and the usual rules; `turn` is ShortGPT's block influence (Men et
# al., arXiv 2403.03853).
NEEDED: dict[str, Rule] = {"least estimate dropped": _most("estimate")}
RULES: dict[str, Rule] = {
    "last layers dropped": lambda columns, kept: np.arange(kept),
    "evenly spread": _evenly,
    "least influence dropped": _most("turn"),
    **{f"random, seed {seed}": _at_random(seed) for seed in range(3)},
}


def plot_methods(folder: Path, rows: Rows) -> None:
    """Draws error and loss over field evaluations, a line for each method, in a panel for fewer
    evaluations than the native solve and one for more."""
    for quantity, label in (("error", "relative error of the outputs"), ("loss", "loss")):
        measured = [row for row in rows if row[quantity] is not None]
        points: dict[str, dict[float, list[float]]] = {}
        for row in measured:
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
        path = folder / f"{quantity}.png"
        plot_panels(path, panels, x="field evaluations", y=label, marker="o")
