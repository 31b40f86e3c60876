"""Adaptive steps: one diffrax solve in each interval, so that steps end on boundaries."""

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from ...equation import Equation
from ...solvers import (
    EvaluationCount,
    Evaluations,
    count_evaluations,
    evaluations_made,
    finite,
    first_failure,
    success,
)
from ..gradients.gradient import AbstractGradient
from ..march import Trajectory
from .controller import KeepsProposal
from .token_norm import without_padding


def adapt(
    equation: Equation,
    u0: Float[Array, "*batch tokens features"],
    *,
    solver: diffrax.AbstractSolver,
    stepsize_controller: diffrax.AbstractStepSizeController,
    gradient: AbstractGradient | diffrax.AbstractAdjoint,
    args: PyTree,
    dense: bool,
    max_steps: int,
) -> Trajectory:
    """Steps chosen by `stepsize_controller`, none across an interval boundary.

    Each interval starts with the step that the last one would have taken next. After a
    failure the remaining intervals take no steps.
    """
    length = equation.control.interval_length
    dtype = u0.dtype
    controller = without_padding(stepsize_controller, equation.domain)
    adjoint = gradient.adjoint() if isinstance(gradient, AbstractGradient) else gradient

    def interval(carry, inputs):
        u, dt0, result, failed_at = carry
        index, weights = inputs
        going_on = result == diffrax.RESULTS.successful
        start = index * length
        solution = diffrax.diffeqsolve(
            equation.interval_terms(index, weights),
            solver,
            t0=start,
            t1=jnp.where(going_on, start + length, start),
            dt0=jnp.minimum(dt0, length),
            y0=u,
            args=args,
            saveat=diffrax.SaveAt(
                t1=True, dense=dense, controller_state=True, solver_state=True
            ),
            stepsize_controller=KeepsProposal(controller),
            adjoint=adjoint,
            max_steps=max_steps,
            throw=False,
        )
        # Both were asked for above, so neither is missing.
        (u,), (reached,) = solution.ys, solution.ts  # pyright: ignore[reportGeneralTypeIssues]
        _, dt0, _ = solution.controller_state  # pyright: ignore[reportGeneralTypeIssues]
        here = first_failure(solution.result, finite(u))
        failed_at = jnp.where(
            going_on & (here != diffrax.RESULTS.successful), reached, failed_at
        )
        result = first_failure(result, here)
        counts = (
            solution.stats["num_steps"],
            solution.stats["num_rejected_steps"],
            evaluations_made(solution.solver_state),
        )
        dt0 = lax.stop_gradient(dt0).astype(dtype)
        return (u, dt0, result, failed_at), (u, solution.interpolation, counts)

    carry = (
        u0,
        jnp.array(length, dtype),
        success(),
        jnp.array(jnp.inf, dtype),
    )
    scan = gradient.scan if isinstance(gradient, AbstractGradient) else lax.scan
    num_intervals = equation.control.num_intervals
    indices = jnp.arange(num_intervals, dtype=dtype)
    (u1, _, result, failed_at), (states, interpolation, counts) = scan(
        interval, carry, (indices, equation.intervals())
    )
    steps, rejected, made = counts
    block = eqx.filter_eval_shape(equation.control, 0.0)
    cost = count_evaluations(solver, block, u0.shape[-1])
    return Trajectory(
        u1=u1,
        states=states,
        interpolation=interpolation,
        result=result,
        failed_at=failed_at,
        steps=jnp.sum(steps),
        rejected=jnp.sum(rejected),
        field_evaluations=_field_evaluations(cost, made, steps),
    )


def _field_evaluations(
    cost: Evaluations | None, made: EvaluationCount | None, steps: Int[Array, " intervals"]
) -> Array | float:
    """Of all steps, accepted or not; an implicit scheme has counted those of the accepted
    ones, and where nothing was counted it is NaN."""
    if cost is not None:
        started = jnp.sum(steps > 0)
        return jnp.sum(steps) * cost.following + started * (cost.first - cost.following)
    return jnp.nan if made is None else jnp.sum(made.count)
