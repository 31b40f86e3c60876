"""Adaptive steps: one diffrax solve in each interval, so that steps end on boundaries."""

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ...equation import Equation
from ...errors import InputError
from ...solvers import evaluations_made, first_failure
from ..gradients.gradient import AbstractGradient
from ..march import step_cost
from ..output import Start
from ..trajectory import Status, Trajectory, field_evaluations
from .controller import KeepsProposal, without_padding


class AdaptiveSteps(eqx.Module):
    """The plan of an adaptive solve, with at most `max_steps` in each interval."""

    equation: Equation
    solver: diffrax.AbstractSolver
    controller: diffrax.AbstractStepSizeController
    max_steps: int = eqx.field(static=True)


def adapt(steps: AdaptiveSteps, start: Start, gradient: AbstractGradient) -> Trajectory:
    """Steps chosen by the controller, none across an interval boundary.

    Each interval starts with the step that the last one would have taken next. After a
    failure the remaining intervals take no steps.
    """
    u0, args, output = start
    _check_estimate(steps, u0)
    equation, dtype = steps.equation, u0.dtype
    length = equation.control.interval_length
    controller = KeepsProposal(without_padding(steps.controller, equation.domain))
    saveat = diffrax.SaveAt(
        t1=True, dense=output.dense, controller_state=True, solver_state=True
    )

    def interval(carry, inputs):
        u, dt0, status = carry
        index, weights = inputs
        beginning = index * length
        going_on = status.result == diffrax.RESULTS.successful
        solution = diffrax.diffeqsolve(
            equation.interval_terms(index, weights),
            steps.solver,
            t0=beginning,
            t1=jnp.where(going_on, beginning + length, beginning),
            dt0=jnp.minimum(dt0, length),
            y0=u,
            args=args,
            saveat=saveat,
            stepsize_controller=controller,
            adjoint=gradient.adjoint(),
            max_steps=steps.max_steps,
            throw=False,
        )
        assert solution.ys is not None and solution.ts is not None
        assert solution.controller_state is not None
        u, reached = solution.ys[0], solution.ts[0]
        status = status.after(first_failure(status.result, solution.result), u, reached)
        dt0 = jnp.asarray(solution.controller_state.proposal, dtype)
        stats = solution.stats["num_steps"], solution.stats["num_rejected_steps"]
        counted = evaluations_made(solution.solver_state)
        return (u, lax.stop_gradient(dt0), status), (u, solution.interpolation, stats, counted)

    carry = u0, jnp.array(length, dtype), Status.start(dtype)
    indices = jnp.arange(equation.control.num_intervals, dtype=dtype)
    (u1, _, status), (states, interpolation, (made, rejected), counted) = gradient.scan(
        interval, carry, (indices, equation.intervals())
    )
    cost = step_cost(equation, steps.solver, u0.shape[-1])
    total, rejected = jnp.sum(made), jnp.sum(rejected)
    evaluations = field_evaluations(cost, total, jnp.sum(made > 0), counted)
    return Trajectory(u1, states, interpolation, status, total, rejected, evaluations)


def _check_estimate(steps: AdaptiveSteps, u0: Array) -> None:
    """Refuses a solver without an estimate of its error."""
    solver = steps.solver

    def estimate(equation, u0):
        terms = equation.terms_of(0)
        t0, t1 = jnp.zeros((), u0.dtype), jnp.ones((), u0.dtype)
        state = solver.init(terms, t0, t1, u0, None)
        return solver.step(terms, t0, t1, u0, None, state, True)[1]

    if eqx.filter_eval_shape(estimate, steps.equation, u0) is None:
        name = type(solver).__name__
        raise InputError(
            f"solve: {name} has no error estimate for {type(steps.controller).__name__} "
            f"to choose steps by; use diffrax.HalfSolver({name}(…)), which compares one step "
            "with two halves, or an embedded pair such as diffrax.Tsit5()."
        )
