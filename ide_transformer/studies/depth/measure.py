"""Cost against error and loss for every way to solve a model over depth."""

import functools as ft
import inspect
import itertools
import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, PyTree
from scipy import stats

from ... import dynamics
from ...dynamics.layers import MOST_SELECTIONS
from ...models import Model
from ...solvers import LieStrang
from .budget import Budget, OverBudget
from .problem import Problem
from .ranking import NEEDED, RULES, Columns, Ranking, layer_columns, rank_layers


# Of an adaptive solve in an interval. A constraint that moves the state by more than the
# tolerance, however small the step, lets no step be accepted.
_MOST_STEPS = 12

# Below this one, an adaptive solve whose steps still do not change is left as it is.
_LEAST_TOLERANCE = 1e-5

# Samples from which the defects of the layers are estimated; they vary little between samples.
_ESTIMATED_ON = 64

_COARSENINGS = {
    "coarsened": dict(moves=dynamics.MOVES, fit=dynamics.fit_rates),
    "dropped": dict(moves=(dynamics.selections, dynamics.drops), fit=None),
    "merged": dict(moves=(dynamics.mergers,), fit=None),
}


class CoarseningStudy(NamedTuple):
    """The measurements on the held-out batch.

    - `rows`: of each method and budget, the native solve first: `method`,
      `field_evaluations`, `loss`, `change` (of the loss, against the native one),
      `uncertainty` (the standard error of that change over samples, which are the same for
      both), `error` (relative to the native model) and `layers`.
    - `budgets`: coarsening against dropping layers, for each number of field evaluations; see
      `compare_budgets`.
    - `ranking`: which layers matter, by the equation and as measured.
    - `left_out`: the methods for which there was no time, or not for all of their budgets.
    """

    rows: list[dict[str, Any]]
    budgets: list[dict[str, Any]]
    ranking: Ranking
    left_out: Sequence[str] = ()


def measure_coarsening(
    model: Model,
    problem: Problem,
    *,
    refinements: Sequence[int] = (2, 4),
    tolerances: Sequence[float] = (0.5, 0.1),
    budget: Budget | None = None,
) -> CoarseningStudy:
    """Solves a model natively, coarser (down to half its evaluations), finer, and with layers
    dropped by the rules in use.

    **Arguments:**

    - `refinements`: numbers of steps in each interval.
    - `tolerances`: of the adaptive solves. One that changes no step is made smaller.
    - `budget`: shows the progress and limits the time. The native solve and the ranking of the
      layers are made in any case.
    """
    study = _Study(model, problem, budget or Budget())
    stages = study.stages(refinements, tolerances)
    study.budget.plan({name: seconds for name, (_, seconds) in stages.items()})
    left_out = []
    for name, (run, _) in stages.items():
        try:
            study.budget.begin(name, needed=run == study.rank)
            run()
        except OverBudget:
            left_out.append(name)
    ours = {*_COARSENINGS, *NEEDED}
    budgets = compare_budgets(study.rows, study.losses, ours=ours, theirs=set(RULES))
    return CoarseningStudy(study.rows, budgets, study.ranking, left_out)


class _Solved(NamedTuple):
    """Field evaluations of a solve of the held-out batch, its error relative to the native
    model, and the loss of each sample."""

    evaluations: float
    error: float
    losses: np.ndarray


class _Study:
    """Solves that are made, the rows of the table and, for each, the loss of each sample."""

    ranking: Ranking
    columns: Columns

    def __init__(self, model: Model, problem: Problem, budget: Budget):
        self.model, self.problem, self.budget = model, problem, budget
        self.calibration, self.held_out = problem.sizes
        self.number = model.control.num_intervals
        self.least = math.ceil(self.number / 2)
        compiled, _ = _timed(lambda: self.state(model))
        solved, (native_state, evaluations) = _timed(lambda: self.state(model))
        outputs = model.outputs(native_state)
        self.target = dynamics.Target(problem.held_out, outputs, problem.read)
        self.native = self.judge(native_state, evaluations)
        self.rows: list[dict[str, Any]] = []
        self.losses: list[np.ndarray] = []
        self.add("native", self.native)
        self.refined: dict[int, Array] = {1: native_state}
        self.adapted: Array | None = None
        self.keep = ft.cache(self._keep)
        # Predicted seconds for each sample that is solved, and for each program.
        self.sample, self.program = solved / self.held_out, max(compiled - solved, 0.0)

    def stages(
        self, refinements: Sequence[int], tolerances: Sequence[float]
    ) -> dict[str, tuple[Callable[[], None], float]]:
        """The parts of the study and their predicted seconds, in the order in which they are
        made: cheap ones first."""
        few = self.number - self.least
        stages = {
            "layers": (self.rank, self.cost(4 * self.number, 4)),
            "rules that drop layers": (self.drop, self.cost(few * len(NEEDED | RULES), few)),
        }
        for name, options in _COARSENINGS.items():
            run = ft.partial(self.search, name, **options)
            stages[name] = run, self.cost_of_search(**options)
        for k in refinements:
            stages[f"refined, {k} steps"] = ft.partial(self.refine, k), self.cost(3 * k, 1)
        for tolerance in tolerances:
            run = ft.partial(self.adapt, tolerance)
            # Of five evaluations each.
            stages[f"adaptive, tolerance {tolerance:g}"] = run, self.cost(10, 1)
        return stages

    def cost(self, solves: int, programs: int) -> float:
        """Seconds of some solves of the held-out batch."""
        return solves * self.held_out * self.sample + programs * self.program

    def cost_of_fit(self, samples: int) -> float:
        """A gradient is worth three solves."""
        options = inspect.signature(dynamics.fit_rates).parameters
        batch = min(options["batch"].default, samples)
        return 3 * options["steps"].default * batch * self.sample

    def cost_of_search(self, moves: Sequence[Callable], fit: Callable | None) -> float:
        tried_on = self.calibration // 4 or self.calibration
        operators, few = self.model.equation.num_operators, self.number - self.least
        tried = 0
        for kept in range(self.least, self.number):
            choices = math.comb(self.number, kept)
            counts = {
                dynamics.selections: choices if choices <= MOST_SELECTIONS else 0,
                dynamics.mergers: kept,
            }
            # Of those that leave out neighbouring operators.
            windows = kept * operators + 1
            tried += sum(counts.get(move, windows) for move in moves)
        seconds = tried * tried_on * self.sample + self.cost(few, 0)
        if fit is not None:
            # Programs to judge what is fitted and what is not; to compile a fit takes as long
            # as six. The others are shared.
            fitting = self.cost_of_fit(self.calibration - self.calibration // 4)
            seconds += few * (fitting + 8 * self.program)
        return seconds

    def rank(self) -> None:
        few = jax.tree.map(lambda x: x[:_ESTIMATED_ON], self.problem.calibration)
        self.columns = layer_columns(self.model, few, self.problem.read)
        every = range(self.number)
        removed = [self.keep((*every[:i], *every[i + 1 :])).error for i in every]
        self.ranking = rank_layers(self.columns, np.array(removed))

    def drop(self) -> None:
        for name, rule in (NEEDED | RULES).items():
            for kept in range(self.number - 1, self.least - 1, -1):
                self.budget.check()
                layers = tuple(rule(self.columns, kept))
                self.add(name, self.keep(layers), " ".join(map(str, layers)))

    def search(self, name: str, moves: Sequence[Callable], fit: Callable | None) -> None:
        """Coarser meshes, as many as there is time for."""

        def in_time(move: Callable, layered: dynamics.Layered) -> Iterator[dynamics.Layered]:
            for found in move(layered):
                self.budget.check()
                yield found

        def fit_in_time(model: Model, target: dynamics.Target) -> Model:
            assert fit is not None
            self.budget.check(self.cost_of_fit(target.samples))
            return fit(model, target)

        meshes = dynamics.coarsenings(
            self.model,
            self.problem.calibration,
            read=self.problem.read,
            moves=tuple(ft.partial(in_time, move) for move in moves),
            fit=None if fit is None else fit_in_time,
        )
        for coarse in itertools.islice(meshes, 1, self.number - self.least + 1):
            self.add(name, self.judge(*self.state(coarse.model)), _text(coarse.steps))

    def refine(self, k: int) -> None:
        """Refined and extrapolated solves."""
        native, solved = self.native.evaluations, self.refined
        for steps in {k, 2 * k} - {*solved}:
            solved[steps] = self.state(dynamics.refine(self.model, steps))[0]
        self.add("refined", self.judge(solved[k], k * native))
        u1 = dynamics.extrapolated(self.model, solved[k], solved[2 * k])
        self.add("extrapolated", self.judge(u1, 3 * k * native))

    def adapt(self, tolerance: float) -> None:
        """An adaptive solve. A tolerance that each first try has met says no more than the
        one before; a smaller one does."""
        u1, evaluations = self.state(_adaptive(self.model, tolerance))
        before = self.adapted
        while (
            before is not None and np.array_equal(u1, before) and tolerance > _LEAST_TOLERANCE
        ):
            self.budget.check()
            tolerance /= 10
            u1, evaluations = self.state(_adaptive(self.model, tolerance))
        self.adapted = u1
        self.add("adaptive", self.judge(u1, evaluations), f"tolerance {tolerance:g}")

    def _keep(self, layers: tuple[int, ...]) -> _Solved:
        """Solves with some of the native layers only."""
        return self.judge(*self.state(dynamics.keep_layers(self.model, layers)))

    def state(self, model: Model) -> tuple[Array, float]:
        """The state of a model at depth T, NaN where the solve failed, and its evaluations."""
        state, evaluations = _solved_batch(model, self.problem.held_out)
        return state, float(evaluations)

    def judge(self, state: Array, evaluations: float) -> _Solved:
        outputs = self.model.outputs(state)
        error = float(self.target.output_error(self.model, outputs))
        return _Solved(evaluations, error, np.asarray(self.problem.losses(outputs)))

    def add(self, method: str, solved: _Solved, layers: str = "") -> None:
        """Adds a row; without numbers where the solve failed."""
        change = solved.losses - self.native.losses
        measured = {
            "loss": float(np.mean(solved.losses)),
            "change": float(np.mean(change)),
            "uncertainty": _standard_error(change),
            "error": solved.error,
        }
        if not np.isfinite(solved.error):
            measured = dict.fromkeys(measured)
        row = {"method": method, "field_evaluations": solved.evaluations}
        self.rows.append({**row, **measured, "layers": layers})
        self.losses.append(solved.losses)


@eqx.filter_jit
def _solved_batch(model: Model, inputs: PyTree[ArrayLike]) -> tuple[Array, Array]:
    """The state at depth T, NaN where the solve failed, and its field evaluations, the mean
    over samples that have steps of their own."""
    solution = model.solve(inputs)
    u1 = jnp.where(jnp.all(solution.succeeded), solution.u1, jnp.nan)
    return u1, jnp.mean(solution.stats["field_evaluations"])


def _adaptive(model: Model, tolerance: float) -> Model:
    """The model solved by an embedded pair. All tolerances have one program."""
    bound = jnp.asarray(tolerance)
    return model.with_solver(
        LieStrang(),
        stepsize_controller=diffrax.PIDController(rtol=bound, atol=bound),
        max_steps=_MOST_STEPS,
    )


def _timed(make: Callable[[], Any]) -> tuple[float, Any]:
    """The seconds that it takes to make something, and that."""
    began = time.perf_counter()
    made = jax.block_until_ready(make())
    return time.perf_counter() - began, made


def compare_budgets(
    rows: Sequence[dict[str, Any]],
    losses: Sequence[np.ndarray],
    *,
    ours: Collection[str],
    theirs: Collection[str],
) -> list[dict[str, Any]]:
    """For each number of field evaluations, the method of least loss among `ours` and among
    `theirs`, with the loss of each, `difference` (ours minus theirs) and `uncertainty`, the
    standard error of that difference over samples; `losses` has those of each row. Both methods
    are the best on these very samples, which favours the side with more of them."""
    table = []
    for budget in sorted({row["field_evaluations"] for row in rows}, reverse=True):
        solved = [
            (row, own)
            for row, own in zip(rows, losses, strict=True)
            if row["field_evaluations"] == budget and row["loss"] is not None
        ]
        sides = [
            [pair for pair in solved if pair[0]["method"] in side] for side in (ours, theirs)
        ]
        if not all(sides):
            continue
        (mine, own), (other, its) = (min(x, key=lambda pair: pair[0]["loss"]) for x in sides)
        table.append(
            {
                "field_evaluations": budget,
                "coarsening": mine["method"],
                "loss": mine["loss"],
                "layer_dropping": other["method"],
                "its_loss": other["loss"],
                "difference": float(np.mean(own - its)),
                "uncertainty": _standard_error(own - its),
            }
        )
    return table


def _standard_error(values: np.ndarray) -> float | None:
    """The standard error of the mean of independent values; `None` for a single one."""
    return float(stats.sem(values)) if len(values) > 1 else None


def _text(steps: np.ndarray) -> str:
    """`[intervals, operators]` as `0 1 2/3 4`: the operators of an interval apart where they
    are of different layers."""
    return " ".join("/".join(dict.fromkeys(interval)) for interval in steps)
