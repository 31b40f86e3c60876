"""One trained model solved with fewer and with more field evaluations: cost against error and
loss for every way to solve it, the layers that matter, tables and figures."""

import functools as ft
import itertools
import math
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

from .. import dynamics
from ..errors import InputError
from ..figures import Curve, plot_panels
from ..integration import Mesh
from ..models import Model
from ..reporting import Report, Terminal, write_report
from ..solvers import LieStrang
from ..training import load_model
from ..training.measure.evaluation import at_least_one
from .depth_problem import Problem, make_problem
from .measure import Data, Measured, judge, measure, solved, standard_error


# Of an adaptive solve in an interval. A constraint that moves the state by more than the
# tolerance, however small the step, lets no step be accepted.
_MOST_STEPS = 12

# Below this one, an adaptive solve whose steps still do not change is left as it is.
_LEAST_TOLERANCE = 1e-5

_COARSENINGS: dict[str, dict[str, Any]] = {
    "coarsened": dict(moves=dynamics.MOVES),
    "dropped": dict(moves=(dynamics.selections, dynamics.drops), fit=None),
    "merged": dict(moves=(dynamics.mergers,), fit=None),
}

Rows = list[dict[str, Any]]
# Predictions for each layer by name, `[intervals]` each.
Columns = dict[str, np.ndarray]
# From columns and a number of layers to the layers that are kept.
Rule = Callable[[Columns, int], np.ndarray]


class CoarseningStudy(NamedTuple):
    """The measurements on the held-out batch.

    - `rows`: of each method and budget, the native solve first: `method`,
      `field_evaluations`, `loss`, `change` (of the loss, against the native one),
      `uncertainty` (the standard error of that change over samples, which are the same for
      both), `error` (relative to the native model) and `layers`.
    - `budgets`: coarsening against dropping layers, for each number of field evaluations; see
      `compare_budgets`.
    - `layers`: of each native layer the numbers of `Defects`, and what leaving it out does:
      `estimate`, as predicted, and `damage`, as measured.
    - `correlations`: Spearman's rank correlation of each of these with `damage`.
    """

    rows: Rows
    budgets: Rows
    layers: Rows
    correlations: dict[str, float]


def study_coarsening(
    path: str, folder: Path, *, calibration: int, held_out: int, trust: bool = False
) -> list[Report]:
    """Coarsens and refines the run or checkpoint in `path`, compares it with dropping layers by
    the rules in use, and writes tables and figures into `folder`; from so many samples to
    choose and fit by, and to measure on."""
    at_least_one("calibration", calibration)
    at_least_one("held_out", held_out)
    say = Terminal().print
    loaded = load_model(path, trust=trust)
    if loaded.model.ordinary.control.layers < 2:
        raise InputError(f"{path}: its model has one layer, so none can be left out.")
    problem = make_problem(loaded, calibration, held_out)
    say(f"loss: {problem.loss}")
    study = measure_coarsening(loaded.model.ordinary, problem, say=say)
    name = Path(path).name
    chosen_on, measured_on = problem.sizes
    ranks = (f"{column} {value:.2f}" for column, value in study.correlations.items())
    reports = [
        Report(
            f"depth of {name}",
            f"The weights of {path} with fewer and with more field evaluations. Steps were "
            f"chosen and fitted on {chosen_on} samples without their targets. Error (of what "
            "the loss reads of the outputs, relative to the native solve) and loss "
            f"({problem.loss}) are those of {measured_on} held-out samples. Change is that of "
            "the loss against the native one. Uncertainty is its standard error over the "
            "samples, which are the same for both.",
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
            "that drops layers. Difference is its loss minus that of the rule, with its "
            "standard error over the samples. Both are the best on these samples, and the "
            "standard error does not know of that choice.",
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
            "Defects of each layer, the error that the equation predicts from leaving it out "
            "(estimate), and the error that this makes (damage). Spearman's correlation with "
            f"it: {', '.join(ranks)}.",
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
    tolerances: Sequence[float] = (0.5, 0.1),
    say: Callable[[str], None] = lambda line: None,
) -> CoarseningStudy:
    """Solves a model natively, coarser (down to half its evaluations), finer (by numbers of
    steps in each interval, and by tolerances), and with layers dropped by the rules in use.
    `say` is called with each part of the study as it begins."""
    study = _Study(model, problem)
    number = model.layers
    few = range(number - 1, math.ceil(number / 2) - 1, -1)
    say("layers")
    # The defects of the layers vary little between samples.
    estimated_on = jax.tree.map(lambda x: x[:64], problem.calibration)
    found = dynamics.defects(model, estimated_on)._asdict()
    found["estimate"] = dynamics.removal_estimate(model, estimated_on, problem.read)
    columns = {name: np.asarray(column) for name, column in found.items()}
    every = range(number)
    removed = [study.keep((*every[:i], *every[i + 1 :])).error for i in every]
    say("rules that drop layers")
    for name, rule in (NEEDED | RULES).items():
        for layers in (tuple(rule(columns, kept).tolist()) for kept in few):
            study.add(name, study.keep(layers), " ".join(map(str, layers)))
    for name, options in _COARSENINGS.items():
        say(name)
        meshes = dynamics.coarsenings(model, problem.calibration, read=problem.read, **options)
        for coarse in itertools.islice(meshes, 1, len(few) + 1):
            # The operators of an interval apart where they are of different layers: 0 1 2/3 4.
            steps = " ".join("/".join(dict.fromkeys(interval)) for interval in coarse.steps)
            study.add(name, study.solve(coarse.model), steps)
    for steps in refinements:
        say(f"refined, {steps} steps")
        study.refine(steps)
    for tolerance in tolerances:
        say(f"adaptive, tolerance {tolerance:g}")
        study.adapt(tolerance)
    ours = {*_COARSENINGS, *NEEDED}
    budgets = compare_budgets(study.rows, study.losses, ours=ours, theirs=set(RULES))
    damage = np.array(removed)
    ranks = {name: spearman(column, damage) for name, column in columns.items()}
    rows: Rows = [{"layer": layer} for layer in every]
    for name, column in {**columns, "damage": damage}.items():
        for row, x in zip(rows, column.tolist(), strict=True):
            row[name] = x if np.isfinite(x) else None
    return CoarseningStudy(study.rows, budgets, rows, ranks)


class _Study:
    """Solves that are made, the rows of the table and, for each, the loss of each sample."""

    def __init__(self, model: Model, problem: Problem):
        self.model = model
        outputs = model.outputs(solved(model, problem.held_out)[0])
        target = dynamics.Target(problem.held_out, outputs, problem.read)
        self.data = Data(
            problem.held_out,
            problem.losses,
            error=lambda u1, outputs: target.output_error(model, outputs),
        )
        self.rows: Rows = []
        self.losses: list[np.ndarray] = []
        self.keep = ft.cache(lambda layers: self.solve(dynamics.keep_layers(model, layers)))
        self.refined = ft.cache(lambda steps: self.solve(dynamics.refine(model, steps)))
        self.native = self.solve(model)
        self.adapted: Measured | None = None
        self.add("native", self.native)

    def solve(self, model: Model) -> Measured:
        return measure(model, self.data)

    def refine(self, k: int) -> None:
        """Refined and extrapolated solves."""
        coarse = self.refined(k)
        fine = self.refined(2 * k)
        self.add("refined", coarse)
        u1 = dynamics.extrapolated(self.model, coarse.u1, fine.u1)
        evaluations = coarse.evaluations + fine.evaluations
        self.add("extrapolated", judge(self.model, u1, evaluations, self.data))

    def adapt(self, tolerance: float) -> None:
        """An adaptive solve. A tolerance that each first try has met says no more than the
        one before; a smaller one does."""
        before = self.adapted
        while True:
            bound = jnp.asarray(tolerance)  # an array, so that all have one program
            controller = diffrax.PIDController(rtol=bound, atol=bound)
            mesh = Mesh(
                solver=LieStrang(), stepsize_controller=controller, max_steps=_MOST_STEPS
            )
            self.adapted = self.solve(self.model.on(mesh))
            same = before is not None and np.array_equal(self.adapted.u1, before.u1)
            if not same or tolerance <= _LEAST_TOLERANCE:
                break
            tolerance /= 10
        self.add("adaptive", self.adapted, f"tolerance {tolerance:g}")

    def add(self, method: str, found: Measured, layers: str = "") -> None:
        """Adds a row; without numbers where the solve failed."""
        change = found.losses - self.native.losses
        measured = {
            "loss": found.loss,
            "change": float(np.mean(change)),
            "uncertainty": standard_error(change),
            "error": found.error,
        }
        if not np.isfinite(found.error):
            measured = dict.fromkeys(measured)
        row = {"method": method, "field_evaluations": found.evaluations}
        self.rows.append({**row, **measured, "layers": layers})
        self.losses.append(found.losses)


def compare_budgets(
    rows: Rows, losses: Sequence[np.ndarray], *, ours: Collection[str], theirs: Collection[str]
) -> Rows:
    """For each number of field evaluations, the method of least loss among `ours` and among
    `theirs`, with the loss of each, `difference` (ours minus theirs) and `uncertainty`, the
    standard error of that difference over samples; `losses` has those of each row. Both methods
    are the best on these very samples, which favours the side with more of them."""
    table = []
    for budget in sorted({row["field_evaluations"] for row in rows}, reverse=True):
        solves = [
            pair
            for pair in zip(rows, losses, strict=True)
            if pair[0]["field_evaluations"] == budget and pair[0]["loss"] is not None
        ]
        mine = [pair for pair in solves if pair[0]["method"] in ours]
        others = [pair for pair in solves if pair[0]["method"] in theirs]
        if not mine or not others:
            continue
        row, own = min(mine, key=lambda pair: pair[0]["loss"])
        other, its = min(others, key=lambda pair: pair[0]["loss"])
        table.append(
            {
                "field_evaluations": budget,
                "coarsening": row["method"],
                "loss": row["loss"],
                "layer_dropping": other["method"],
                "its_loss": other["loss"],
                "difference": float(np.mean(own - its)),
                "uncertainty": standard_error(own - its),
            }
        )
    return table


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation over the pairs that have both numbers; NaN where it is not
    defined."""
    from scipy.stats import rankdata  # it takes a second to import

    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


def _most(name: str) -> Rule:
    """Keeps the layers whose number in a column is greatest."""
    return lambda columns, kept: np.sort(np.argsort(-columns[name], kind="stable")[:kept])


def _at_random(seed: int) -> Rule:
    """Drops layers at random; a smaller number keeps some of those that a larger one keeps."""
    return lambda columns, kept: np.sort(
        np.random.default_rng(seed).permutation(len(columns["estimate"]))[:kept]
    )


def _evenly(columns: Columns, kept: int) -> np.ndarray:
    """Keeps layers evenly spread, the first and the last among them: every other one where
    half are kept. Reference: Sajjad et al., arXiv 2004.03844."""
    return np.linspace(0, len(columns["estimate"]) - 1, kept).round().astype(int)


# By the equation; and as in use elsewhere, among them the block influence of ShortGPT, `turn`
# (Men et al., arXiv 2403.03853).
NEEDED: dict[str, Rule] = {"least estimate dropped": _most("estimate")}
RULES: dict[str, Rule] = {
    "last layers dropped": lambda columns, kept: np.arange(kept),
    "evenly spread": _evenly,
    "least influence dropped": _most("turn"),
    **{f"random, seed {seed}": _at_random(seed) for seed in range(3)},
}


def plot_methods(folder: Path, rows: Rows) -> None:
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
        path = folder / f"{quantity}.png"
        plot_panels(path, panels, x="field evaluations", y=label, marker="o")
