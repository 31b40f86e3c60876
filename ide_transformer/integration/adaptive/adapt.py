"""Adaptive steps: one diffrax solve in each interval, so that steps end on boundaries."""

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ...equation import Equation
from ...errors import InputError
from ...solvers import evaluations_made, first_failure
from ..cost import field_evaluations, step_cost
from ..gradients.gradient import AbstractGradient
from ..output import Start
from ..trajectory import Status, Trajectory
from .controller import KeepsProposal
from .token_norm import without_padding


class AdaptiveSteps(eqx.Module):
    """The plan of an adaptive solve.

    **Arguments:**

    - `max_steps`: in one interval.
    """

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
    adjoint = gradient.adjoint()

    def interval(carry, inputs):
        u, dt0, status = carry
        index, weights = inputs
        going_on = status.result == diffrax.RESULTS.successful
        beginning = index * length
        solution = diffrax.diffeqsolve(
            equation.interval_terms(index, weights),
            steps.solver,
            t0=beginning,
            t1=jnp.where(going_on, beginning + length, beginning),
            dt0=jnp.minimum(dt0, length),
            y0=u,
            args=args,
            saveat=diffrax.SaveAt(
                t1=True, dense=output.dense, controller_state=True, solver_state=True
            ),
            stepsize_controller=controller,
            adjoint=adjoint,
            max_steps=steps.max_steps,
            throw=False,
        )
        assert solution.ys is not None and solution.ts is not None
        u, reached = solution.ys[0], solution.ts[0]
        result = first_failure(status.result, solution.result)
        status = status.after(result, u, reached)
        dt0 = jnp.asarray(controller.proposal(solution.controller_state), dtype)
        stats = solution.stats["num_steps"], solution.stats["num_rejected_steps"]
        counted = evaluations_made(solution.solver_state)
        return (u, lax.stop_gradient(dt0), status), (u, solution.interpolation, stats, counted)

    indices = jnp.arange(equation.control.num_intervals, dtype=dtype)
    (u1, _, status), (states, interpolation, (made, rejected), counted) = gradient.scan(
        interval,
        (u0, jnp.array(length, dtype), Status.start(dtype)),
        (indices, equation.intervals()),
    )
    cost, total = step_cost(equation, steps.solver, u0.shape[-1]), jnp.sum(made)
    return Trajectory(
        u1=u1,
        states=states,
        interpolation=interpolation,
        status=status,
        steps=total,
        rejected=jnp.sum(rejected),
        field_evaluations=field_evaluations(cost, total, jnp.sum(made > 0), counted),
    )


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
