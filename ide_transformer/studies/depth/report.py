"""Depth solved anew, as a table: cost against error and loss for every way of doing it."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from ...depth.coarsen import MOVES, coarsenings
from ...depth.fit import fit_rates
from ...depth.layers import keep_layers
from ...depth.moves import drops, mergers, selections
from ...depth.refine import extrapolated, refine
from ...depth.target import Read, Reference
from ...equation import Free
from ...models import AbstractModel
from ...solvers import LieStrang
from ...solvers.base import projected
from .budgets import compare_budgets, standard_error
from .ranking import Ranking, layer_columns, rank_layers
from .rules import Rule, at_random, evenly, first_layers, most_needed, most_turning


# Of an adaptive solve in an interval. A constraint that moves the state by more than the
# tolerance, however small the step, lets no step be accepted.
_MOST_STEPS = 12


class DepthReport(NamedTuple):
    """What was measured on the held-out batch.

    - `rows`: of each method and budget, with `method`, `field_evaluations`, `loss`, `change`
      (of the loss, against the native one), `uncertainty` (the standard error of that change
      over samples, which are the same for both), `error` (relative to the native model) and
      `layers`.
    - `budgets`: coarsening against dropping layers, for each number of field evaluations; see
      `compare_budgets`.
    - `ranking`: which layers matter, as the equation says and as measured.
    """

    rows: list[dict[str, Any]]
    budgets: list[dict[str, Any]]
    ranking: Ranking


_COARSENINGS = {
    "coarsened": dict(moves=MOVES, fit=fit_rates),
    "dropped": dict(moves=(selections, drops), fit=None),
    "merged": dict(moves=(mergers,), fit=None),
}

_NEEDED: dict[str, Rule] = {"least estimate dropped": most_needed}

_RULES: dict[str, Rule] = {
    "last layers dropped": first_layers,
    "evenly spread": evenly,
    "least influence dropped": most_turning,
    "random, seed 0": at_random(0),
    "random, seed 1": at_random(1),
    "random, seed 2": at_random(2),
}

# Samples from which the defects of the layers are estimated; they vary little between samples.
_ESTIMATED_ON = 64


def depth_report(
    model: AbstractModel,
    calibration: PyTree[ArrayLike],
    held_out: PyTree[ArrayLike],
    losses_of: Callable[[PyTree[Array]], Float[Array, " samples"]],
    *,
    read: Read | None = None,
    fewest: float = 0.5,
    refinements: tuple[int, ...] = (2, 4),
    tolerances: tuple[float, ...] = (0.5, 0.1),
    progress: Callable[[str], None] = lambda method: None,
) -> DepthReport:
    """Solves a model natively, coarser, finer, and with layers dropped by the rules in use.

    **Arguments:**

    - `calibration`, `held_out`: batches of inputs. Whatever is chosen or fitted is chosen
      and fitted on the first, and measured on the second.
    - `losses_of`: the task loss of each sample, from outputs for the held-out inputs.
    - `read`: what the task reads of the outputs, as of `Reference`.
    - `fewest`: the smallest budget, as a fraction of the native evaluations.
    - `refinements`: numbers of steps in each interval.
    - `tolerances`: of the adaptive solves.
    - `progress`: called with the name of each method before it begins.
    """
    progress("native")
    state, evaluations = _solved(model, held_out)
    outputs = model.read_out(state)
    target = Reference(held_out, outputs, read)
    native_losses = np.asarray(losses_of(outputs))
    native = float(evaluations)
    rows: list[dict[str, Any]] = []
    losses: list[np.ndarray] = []

    def measured(u1: Array) -> tuple[float, np.ndarray]:
        outputs = model.read_out(u1)
        return float(target.error_of(model, outputs)), np.asarray(losses_of(outputs))

    def add(method: str, evaluations: float, found: tuple[float, np.ndarray], layers: str = ""):
        error, now = found
        change, finite = now - native_losses, np.isfinite(error)
        row = {
            "method": method,
            "field_evaluations": evaluations,
            "loss": float(np.mean(now)) if finite else None,
            "change": float(np.mean(change)) if finite else None,
            "uncertainty": standard_error(change) if finite else None,
            "error": error if finite else None,
            "layers": layers,
        }
        rows.append(row)
        losses.append(now)

    known: dict[tuple[int, ...], tuple[float, tuple[float, np.ndarray]]] = {}

    def whole(layers: tuple[int, ...]) -> tuple[float, tuple[float, np.ndarray]]:
        """Evaluations and what is measured of native layers."""
        if layers not in known:
            u1, evaluations = _solved(keep_layers(model, layers), held_out)
            known[layers] = float(evaluations), measured(u1)
        return known[layers]

    add("native", native, measured(state))
    number = model.control.num_intervals
    least = int(np.ceil(fewest * number))
    for name, options in _COARSENINGS.items():
        progress(name)
        meshes = coarsenings(model, calibration, read=read, **options)
        for coarse in itertools.islice(meshes, 1, number - least + 1):
            u1, evaluations = _solved(coarse.model, held_out)
            add(name, float(evaluations), measured(u1), _text(coarse.steps))
    progress("layers")
    few = jax.tree.map(lambda x: x[:_ESTIMATED_ON], calibration)
    columns = layer_columns(model, few, read)
    for name, rule in (_NEEDED | _RULES).items():
        progress(name)
        for kept in range(number - 1, least - 1, -1):
            layers = tuple(rule(columns, kept))
            add(name, *whole(layers), " ".join(map(str, layers)))
    everything = range(number)
    damage = [whole((*everything[:i], *everything[i + 1 :]))[1][0] for i in everything]
    solved = {1: state}
    for k in refinements:
        progress(f"refined, {k} steps")
        for steps in (k, 2 * k):
            if steps not in solved:
                solved[steps], _ = _solved(refine(model, steps), held_out)
        add("refined", k * native, measured(solved[k]))
        u1 = extrapolated(model, solved[k], solved[2 * k])
        add("extrapolated", 3 * k * native, measured(u1))
    for tolerance in tolerances:
        progress(f"adaptive, tolerance {tolerance:g}")
        u1, evaluations = _solved(_adaptive(model, tolerance), held_out)
        add("adaptive", float(evaluations), measured(u1))
    ours = {*_COARSENINGS, *_NEEDED}
    budgets = compare_budgets(rows, losses, ours=ours, theirs=set(_RULES))
    return DepthReport(rows, budgets, rank_layers(columns, np.array(damage)))


@eqx.filter_jit
def _solved(model: AbstractModel, inputs: PyTree[ArrayLike]) -> tuple[Array, Array]:
    """The state at depth T, NaN where the solve failed, and its field evaluations, the mean
    over samples that have steps of their own."""
    solution = model.solve(inputs)
    succeeded = jnp.all(solution.result == diffrax.RESULTS.successful)
    u1 = jnp.where(succeeded, solution.u1, jnp.nan)
    return u1, jnp.mean(solution.stats["field_evaluations"])


def _text(steps: np.ndarray) -> str:
    """`[intervals, operators]` as `0 1 2/3 4`: the operators of an interval apart where they
    are of different layers."""
    return " ".join("/".join(dict.fromkeys(interval)) for interval in steps)


def _adaptive(model: AbstractModel, tolerance: float) -> AbstractModel:
    """Solved by an embedded pair, on the constraint if there is one."""
    free = isinstance(model.constraint(0.0), Free)
    return model.with_solver(
        LieStrang() if free else projected(LieStrang()),
        stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
        max_steps=_MOST_STEPS,
    )
