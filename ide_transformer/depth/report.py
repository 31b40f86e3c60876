"""Depth solved anew, as a table: cost against error and loss for every way of doing it."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..equation import Free
from ..models import AbstractModel
from ..solvers import LieStrang, projected
from .coarsen import coarsenings
from .error import output_error
from .fit import fit_rates, unit_rates
from .layers import keep_layers
from .moves import drops, extensions, mergers
from .ranking import Ranking, rank_layers
from .refine import refine, richardson
from .rules import Rule, at_random, evenly, first_layers, most_needed, most_turning


class DepthReport(NamedTuple):
    """What was measured on the held-out batch.

    - `rows`: of each method and budget, with `method`, `field_evaluations`, `loss`, `error`
      (of the outputs, relative to the native ones) and `layers`.
    - `ranking`: which layers matter, as the equation says and as measured.
    """

    rows: list[dict[str, Any]]
    ranking: Ranking


_COARSENINGS = {
    "coarsened": dict(moves=(drops, extensions, mergers), fit=fit_rates),
    "dropped, fitted": dict(moves=(drops,), fit=fit_rates),
    "merged, fitted": dict(moves=(mergers,), fit=fit_rates),
    "dropped": dict(moves=(drops,), fit=unit_rates),
    "extended": dict(moves=(extensions,), fit=unit_rates),
    "merged": dict(moves=(mergers,), fit=unit_rates),
}

_RULES: dict[str, Rule] = {
    "least estimate dropped": most_needed,
    "last layers dropped": first_layers,
    "evenly spread": evenly,
    "least influence dropped": most_turning,
    "random, seed 0": at_random(0),
    "random, seed 1": at_random(1),
    "random, seed 2": at_random(2),
}


def depth_report(
    model: AbstractModel,
    calibration: PyTree[ArrayLike],
    held_out: PyTree[ArrayLike],
    loss_of: Callable[[PyTree[Array]], Float[Array, ""]],
    *,
    fewest: float = 0.5,
    refinements: tuple[int, ...] = (2, 4),
    tolerances: tuple[float, ...] = (1e-1, 1e-2),
    progress: Callable[[str], None] = lambda method: None,
) -> DepthReport:
    """Solves a model natively, coarser, finer, and with layers dropped by the rules in use.

    **Arguments:**

    - `calibration`, `held_out`: batches of inputs. Whatever is chosen or fitted is chosen
      and fitted on the first, and measured on the second.
    - `loss_of`: the task loss of outputs for the held-out inputs.
    - `fewest`: the smallest budget, as a fraction of the native evaluations.
    - `refinements`: numbers of steps in each interval.
    - `tolerances`: of the adaptive solves.
    - `progress`: called with the name of each method before it begins.
    """
    exact, _ = _solved(model, held_out)
    domain = model.embed(held_out)[1]

    def row(method: str, evaluations: float, outputs: PyTree[Array], layers: str = ""):
        error = float(output_error(outputs, exact, domain))
        return {
            "method": method,
            "field_evaluations": evaluations,
            "loss": float(loss_of(outputs)) if np.isfinite(error) else None,
            "error": error if np.isfinite(error) else None,
            "layers": layers,
        }

    def row_of(method: str, other: AbstractModel, layers: str = ""):
        outputs, evaluations = _solved(other, held_out)
        return row(method, float(evaluations), outputs, layers)

    progress("native")
    rows = [row_of("native", model)]
    number = model.control.num_intervals
    least = int(np.ceil(fewest * number))
    for name, options in _COARSENINGS.items():
        progress(name)
        meshes = coarsenings(model, calibration, **options)
        for coarse in itertools.islice(meshes, 1, number - least + 1):
            rows.append(row_of(name, coarse.model, _text(coarse.steps)))
    for name, rule in _RULES.items():
        progress(name)
        for kept in range(number - 1, least - 1, -1):
            layers = rule(model, calibration, kept)
            steps = np.array([[str(layer)] for layer in layers])
            rows.append(row_of(name, keep_layers(model, layers), _text(steps)))
    for k in refinements:
        progress(f"refined, {k} steps")
        rows.append(row_of("refined", refine(model, k)))
        outputs = richardson(model, k, held_out)
        rows.append(row("extrapolated", 3 * k * rows[0]["field_evaluations"], outputs))
    for tolerance in tolerances:
        progress(f"adaptive, tolerance {tolerance:g}")
        rows.append(row_of("adaptive", _adaptive(model, tolerance)))
    progress("layers")
    return DepthReport(rows, rank_layers(model, calibration, held_out))


@eqx.filter_jit
def _solved(
    model: AbstractModel, inputs: PyTree[ArrayLike]
) -> tuple[PyTree[Array], Float[Array, ""]]:
    """The outputs, and the field evaluations of the solve, the mean over samples that have
    steps of their own."""
    solution = model.solve(inputs)
    return model.read_out(solution.u1), jnp.mean(solution.stats["field_evaluations"])


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
        max_steps=64,
    )
