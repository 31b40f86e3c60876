"""Fixed steps: a scan over the intervals, their weights passed as its inputs."""

from typing import NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from ..equation import Equation
from ..solvers import Evaluations, count_evaluations, evaluations_made
from .gradient import AbstractGradient
from .outcome import finite, first_failure, success


class Trajectory(NamedTuple):
    """What both kinds of solve return to `solve`."""

    u1: Float[Array, "*batch tokens features"]
    # The state at the end of each interval.
    states: Float[Array, "intervals *batch tokens features"]
    # One interpolation for each interval, stacked, if asked for.
    interpolation: diffrax.DenseInterpolation | None
    result: diffrax.RESULTS
    failed_at: Float[Array, ""]
    steps: Int[Array, ""] | int
    rejected: Int[Array, ""] | int
    field_evaluations: Float[Array, ""] | float


# Blocks tabulated for each interval; a longer table takes more memory than it saves time.
_MOST_POINTS = 8


def march(
    equation: Equation,
    u0: Float[Array, "*batch tokens features"],
    *,
    solver: diffrax.AbstractSolver,
    steps_per_interval: int,
    gradient: AbstractGradient,
    args: PyTree,
    dense: bool,
) -> Trajectory:
    """`steps_per_interval` equal steps in each interval.

    The scan is over the stacked weights, so the gradient of an interval writes only that
    interval's weights and the program does not grow with the number of intervals.
    """
    length = equation.control.interval_length
    block = eqx.filter_eval_shape(equation.control, 0.0)
    cost = count_evaluations(solver, block, u0.shape[-1])
    fractions = np.arange(steps_per_interval + 1) / steps_per_interval
    # What is smooth in depth is evaluated here, ahead of the loop.
    equation = tabulated(equation, cost, steps_per_interval)
    offsets = (length * fractions).astype(u0.dtype)
    # Where the field has jumps, they are at the beginning of intervals.
    jumps = (fractions[:-1] == 0) & (not equation.continuous)

    def interval(carry, inputs):
        u, solver_state, result, failed_at = carry
        index, weights = inputs
        terms = equation.interval_terms(index, weights)
        edges = index * length + offsets

        def step(carry, inputs):
            u, solver_state, result = carry
            t0, t1, made_jump = inputs
            u, _, dense_info, solver_state, step_result = solver.step(
                terms, t0, t1, u, args, solver_state, made_jump
            )
            result = first_failure(result, step_result)
            return (u, solver_state, result), dense_info if dense else None

        carry = (u, solver_state, result)
        if steps_per_interval == 1:
            carry, infos = step(carry, (edges[0], edges[1], bool(jumps[0])))
            infos = jax.tree.map(lambda x: x[None], infos)
        else:
            carry, infos = lax.scan(step, carry, (edges[:-1], edges[1:], jumps))
        u, solver_state, result = carry
        result = first_failure(result, finite(u))
        failed_at = jnp.where(
            result == diffrax.RESULTS.successful, jnp.inf, jnp.minimum(failed_at, edges[-1])
        )
        interpolation = _interpolation(solver, edges, infos, u) if dense else None
        return (u, solver_state, result, failed_at), (u, interpolation)

    terms = equation.terms_of(0)
    carry = (
        u0,
        solver.init(terms, offsets[0], offsets[1], u0, args),
        success(),
        jnp.array(jnp.inf, u0.dtype),
    )
    num_intervals = equation.control.num_intervals
    indices = jnp.arange(num_intervals, dtype=u0.dtype)
    (u1, solver_state, result, failed_at), (states, interpolation) = lax.scan(
        gradient.wrap(interval), carry, (indices, equation.intervals())
    )
    steps = num_intervals * steps_per_interval
    starts = 1 if equation.continuous else num_intervals
    return Trajectory(
        u1=u1,
        states=states,
        interpolation=interpolation,
        result=result,
        failed_at=failed_at,
        steps=steps,
        rejected=0,
        field_evaluations=_field_evaluations(cost, solver_state, starts, steps - starts),
    )


def tabulated(
    equation: Equation, cost: Evaluations | None, steps_per_interval: int
) -> Equation:
    """The equation made ready for a march whose steps have this cost."""
    if cost is None:
        return equation
    starts = np.arange(steps_per_interval)[:, None]
    # The fractions of an interval at which the field is evaluated.
    points = (starts + np.array(cost.fractions)) / steps_per_interval
    points = np.unique(points.round(14))
    if len(points) > _MOST_POINTS:
        return equation
    return equation.tabulate(points, np.arange(steps_per_interval + 1) / steps_per_interval)


def _field_evaluations(
    cost: Evaluations | None, solver_state: PyTree, first: int, following: int
) -> Array | float:
    """Of a whole march: steps times their cost, or what an implicit scheme has counted; NaN
    where it has not."""
    if cost is not None:
        return first * cost.first + following * cost.following
    made = evaluations_made(solver_state)
    return jnp.nan if made is None else made.count


def _interpolation(solver, edges, infos, u) -> diffrax.DenseInterpolation:
    return diffrax.DenseInterpolation(
        ts=edges,
        ts_size=jnp.array(len(edges)),
        infos=infos,
        interpolation_cls=solver.interpolation_cls,
        direction=jnp.array(1),
        t0_if_trivial=edges[0],
        y0_if_trivial=jnp.zeros_like(u),
    )
