"""Cost against error and loss for every way to solve a model over depth."""

import functools as ft
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ... import dynamics
from ...models import Model
from ...solvers import LieStrang
from .budget import Budget, OverBudget
from .costs import fit_samples, measure_costs
from .problem import Problem
from .ranking import NEEDED, RULES, Columns, Ranking, layer_columns, rank_layers
from .trials import compare_budgets


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

    - `rows`: of each method and budget; see `Trials`.
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
    budget = Budget() if budget is None else budget
    study = _Study(model, problem, budget)
    stages = study.stages(refinements, tolerances)
    budget.plan({name: stage.seconds for name, stage in stages.items()})
    left_out = []
    for name, stage in stages.items():
        try:
            budget.begin(name, needed=stage.needed)
            stage.run()
        except OverBudget:
            left_out.append(name)
    trials, ours = study.trials, {*_COARSENINGS, *NEEDED}
    budgets = compare_budgets(trials.rows, trials.losses, ours=ours, theirs=set(RULES))
    return CoarseningStudy(trials.rows, budgets, study.ranking, left_out)


class _Stage(NamedTuple):
    """A part of the study, the seconds that it is predicted to take, and whether it is made
    whatever the time."""

    run: Callable[[], None]
    seconds: float
    needed: bool = False


class _Study:
    """The state of a study: what is solved already."""

    ranking: Ranking
    columns: Columns

    def __init__(self, model: Model, problem: Problem, budget: Budget):
        self.model, self.problem, self.budget = model, problem, budget
        self.trials, self.costs = measure_costs(model, problem)
        self.number = model.control.num_intervals
        self.least = math.ceil(self.number / 2)
        self.refined: dict[int, Array] = {1: self.trials.native_state}
        self.adapted: Array | None = None

    def stages(
        self, refinements: Sequence[int], tolerances: Sequence[float]
    ) -> dict[str, _Stage]:
        """Cheap ones first, in the order in which they are made."""
        costs, number, few = self.costs, self.number, self.number - self.least
        ranking = costs.solves(4 * number, programs=4)
        stages = {"layers": _Stage(self._rank, ranking, needed=True)}
        rules = costs.solves(few * len(NEEDED | RULES), programs=few)
        stages["rules that drop layers"] = _Stage(self._drop, rules)
        for name, options in _COARSENINGS.items():
            run = ft.partial(self._search, name, **options)
            stages[name] = _Stage(run, costs.search(self.number, self.least, **options))
        for k in refinements:
            run = ft.partial(self._refine, k)
            stages[f"refined, {k} steps"] = _Stage(run, costs.solves(3 * k, programs=1))
        for tolerance in tolerances:
            run = ft.partial(self._adapt, tolerance)
            # Of five evaluations each.
            stages[f"adaptive, tolerance {tolerance:g}"] = _Stage(run, costs.solves(10, 1))
        return stages

    def _rank(self) -> None:
        few = jax.tree.map(lambda x: x[:_ESTIMATED_ON], self.problem.calibration)
        self.columns = layer_columns(self.model, few, self.problem.read)
        every = range(self.number)
        removed = [self.trials.keep((*every[:i], *every[i + 1 :])).error for i in every]
        self.ranking = rank_layers(self.columns, np.array(removed))

    def _drop(self) -> None:
        for name, rule in (NEEDED | RULES).items():
            for kept in range(self.number - 1, self.least - 1, -1):
                self.budget.check()
                layers = tuple(rule(self.columns, kept))
                self.trials.add(name, self.trials.keep(layers), " ".join(map(str, layers)))

    def _search(self, name: str, moves: Sequence[Callable], fit: Callable | None) -> None:
        """Coarser meshes, as many as there is time for."""
        budget, costs = self.budget, self.costs

        def in_time(move: Callable, layered: dynamics.Layered) -> Iterator[dynamics.Layered]:
            for found in move(layered):
                budget.check()
                yield found

        def fit_in_time(model: Model, target: dynamics.Target) -> Model:
            assert fit is not None
            budget.check(costs.sample * fit_samples(target.samples))
            return fit(model, target)

        meshes = dynamics.coarsenings(
            self.model,
            self.problem.calibration,
            read=self.problem.read,
            moves=tuple(ft.partial(in_time, move) for move in moves),
            fit=None if fit is None else fit_in_time,
        )
        for coarse in itertools.islice(meshes, 1, self.number - self.least + 1):
            self.trials.add(name, self.trials.solve(coarse.model), _text(coarse.steps))

    def _refine(self, k: int) -> None:
        """Refined and extrapolated solves."""
        trials, native, solved = self.trials, self.trials.native.evaluations, self.refined
        for steps in {k, 2 * k} - {*solved}:
            solved[steps] = trials.state(dynamics.refine(self.model, steps))[0]
        trials.add("refined", trials.judge(solved[k], k * native))
        u1 = dynamics.extrapolated(self.model, solved[k], solved[2 * k])
        trials.add("extrapolated", trials.judge(u1, 3 * k * native))

    def _adapt(self, tolerance: float) -> None:
        """An adaptive solve. A tolerance that each first try has met says no more than the
        one before; a smaller one does."""
        u1, evaluations = self.trials.state(_adaptive(self.model, tolerance))
        before = self.adapted
        while (
            before is not None and np.array_equal(u1, before) and tolerance > _LEAST_TOLERANCE
        ):
            self.budget.check()
            tolerance /= 10
            u1, evaluations = self.trials.state(_adaptive(self.model, tolerance))
        self.adapted = u1
        trial = self.trials.judge(u1, evaluations)
        self.trials.add("adaptive", trial, f"tolerance {tolerance:g}")


def _text(steps: np.ndarray) -> str:
    """`[intervals, operators]` as `0 1 2/3 4`: the operators of an interval apart where they
    are of different layers."""
    return " ".join("/".join(dict.fromkeys(interval)) for interval in steps)


def _adaptive(model: Model, tolerance: float) -> Model:
    """The model solved by an embedded pair. All tolerances have one program."""
    bound = jnp.asarray(tolerance)
    return model.with_solver(
        LieStrang(),
        stepsize_controller=diffrax.PIDController(rtol=bound, atol=bound),
        max_steps=_MOST_STEPS,
    )
