"""Cost against error and loss for every way to solve a model over depth."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import diffrax
import jax
import numpy as np
from jaxtyping import Array

from ... import depth
from ...models import AbstractModel
from ...solvers import LieStrang
from .problem import Problem
from .ranking import NEEDED, RULES, Ranking, layer_columns, rank_layers
from .trials import Trials, compare_budgets


# Of an adaptive solve in an interval. A constraint that moves the state by more than the
# tolerance, however small the step, lets no step be accepted.
_MOST_STEPS = 12

# Samples from which the defects of the layers are estimated; they vary little between samples.
_ESTIMATED_ON = 64

_COARSENINGS = {
    "coarsened": dict(moves=depth.MOVES, fit=depth.fit_rates),
    "dropped": dict(moves=(depth.selections, depth.drops), fit=None),
    "merged": dict(moves=(depth.mergers,), fit=None),
}


class CoarseningStudy(NamedTuple):
    """The measurements on the held-out batch.

    - `rows`: of each method and budget; see `Trials`.
    - `budgets`: coarsening against dropping layers, for each number of field evaluations; see
      `compare_budgets`.
    - `ranking`: which layers matter, by the equation and as measured.
    """

    rows: list[dict[str, Any]]
    budgets: list[dict[str, Any]]
    ranking: Ranking


def measure_coarsening(
    model: AbstractModel,
    problem: Problem,
    *,
    refinements: Sequence[int] = (2, 4),
    tolerances: Sequence[float] = (0.5, 0.1),
    progress: Callable[[str], None] = lambda method: None,
) -> CoarseningStudy:
    """Solves a model natively, coarser (down to half its evaluations), finer, and with layers
    dropped by the rules in use.

    **Arguments:**

    - `refinements`: numbers of steps in each interval.
    - `tolerances`: of the adaptive solves.
    - `progress`: called with the name of each method before it begins.
    """
    progress("native")
    trials = Trials(model, problem)
    number = model.control.num_intervals
    least = math.ceil(number / 2)
    for name, options in _COARSENINGS.items():
        progress(name)
        meshes = depth.coarsenings(model, problem.calibration, read=problem.read, **options)
        for coarse in itertools.islice(meshes, 1, number - least + 1):
            trials.add(name, trials.solve(coarse.model), _text(coarse.steps))
    progress("layers")
    few = jax.tree.map(lambda x: x[:_ESTIMATED_ON], problem.calibration)
    columns = layer_columns(model, few, problem.read)
    for name, rule in (NEEDED | RULES).items():
        progress(name)
        for kept in range(number - 1, least - 1, -1):
            layers = tuple(rule(columns, kept))
            trials.add(name, trials.keep(layers), " ".join(map(str, layers)))
    everything = range(number)
    removed = [trials.keep((*everything[:i], *everything[i + 1 :])) for i in everything]
    ranking = rank_layers(columns, np.array([trial.error for trial in removed]))
    _measure_finer(model, trials, refinements, tolerances, progress)
    ours = {*_COARSENINGS, *NEEDED}
    budgets = compare_budgets(trials.rows, trials.losses, ours=ours, theirs=set(RULES))
    return CoarseningStudy(trials.rows, budgets, ranking)


def _measure_finer(
    model: AbstractModel,
    trials: Trials,
    refinements: Sequence[int],
    tolerances: Sequence[float],
    progress: Callable[[str], None],
) -> None:
    """Refined, extrapolated and adaptive solves."""
    native = trials.native.evaluations
    solved: dict[int, Array] = {1: trials.native_state}
    for k in refinements:
        progress(f"refined, {k} steps")
        for steps in {k, 2 * k} - {*solved}:
            solved[steps] = trials.state(depth.refine(model, steps))[0]
        trials.add("refined", trials.judge(solved[k], k * native))
        u1 = depth.extrapolated(model, solved[k], solved[2 * k])
        trials.add("extrapolated", trials.judge(u1, 3 * k * native))
    for tolerance in tolerances:
        progress(f"adaptive, tolerance {tolerance:g}")
        trials.add("adaptive", trials.solve(_adaptive(model, tolerance)))


def _text(steps: np.ndarray) -> str:
    """`[intervals, operators]` as `0 1 2/3 4`: the operators of an interval apart where they
    are of different layers."""
    return " ".join("/".join(dict.fromkeys(interval)) for interval in steps)


def _adaptive(model: AbstractModel, tolerance: float) -> AbstractModel:
    """The model solved by an embedded pair."""
    return model.with_solver(
        LieStrang(),
        stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
        max_steps=_MOST_STEPS,
    )
