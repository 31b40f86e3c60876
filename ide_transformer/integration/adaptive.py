"""Adaptive steps: one diffrax solve in each interval, so that steps end on boundaries."""

import diffrax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PyTree

from ..equation import Equation
from ..solvers import count_evaluations
from .controller import Remembering
from .gradient import AbstractGradient
from .march import Trajectory
from .outcome import finite, first_failure, success


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
            saveat=diffrax.SaveAt(t1=True, dense=dense, controller_state=True),
            stepsize_controller=Remembering(stepsize_controller),
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
        counts = (solution.stats["num_steps"], solution.stats["num_rejected_steps"])
        dt0 = lax.stop_gradient(dt0).astype(dtype)
        return (u, dt0, result, failed_at), (u, solution.interpolation, counts)

    wrapped = gradient.wrap(interval) if isinstance(gradient, AbstractGradient) else interval
    carry = (
        u0,
        jnp.array(length, dtype),
        success(),
        jnp.array(jnp.inf, dtype),
    )
    num_intervals = equation.control.num_intervals
    indices = jnp.arange(num_intervals, dtype=dtype)
    (u1, _, result, failed_at), (states, interpolation, (steps, rejected)) = lax.scan(
        wrapped, carry, (indices, equation.intervals())
    )
    cost = count_evaluations(solver, equation.num_operators)
    started = jnp.sum(steps > 0)
    return Trajectory(
        u1=jnp.where(result == diffrax.RESULTS.successful, u1, jnp.nan),
        states=states,
        interpolation=interpolation,
        result=result,
        failed_at=failed_at,
        steps=jnp.sum(steps),
        rejected=jnp.sum(rejected),
        field_evaluations=jnp.sum(steps) * cost.following
        + started * (cost.first - cost.following),
    )
