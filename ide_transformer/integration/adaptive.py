"""Adaptive steps: one diffrax solve in each interval, so that steps end on boundaries."""

from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jax import lax
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..equation import Equation, TokenDomain, map_parts
from ..errors import InputError
from ..solvers import StepField, evaluations_made, first_failure
from .gradients import AbstractGradient
from .march import check_number, step_cost
from .output import Start, Status, Trajectory, field_evaluations


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
    check_number(steps.equation, steps.solver, None)
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
        t0, t1 = jnp.zeros((), u0.dtype), jnp.ones((), u0.dtype)
        return StepField(equation.terms_of(0), t0, t1).first_step(solver, u0).error

    if eqx.filter_eval_shape(estimate, steps.equation, u0) is None:
        name = type(solver).__name__
        raise InputError(
            f"solve: {name} has no error estimate for {type(steps.controller).__name__} "
            f"to choose steps by; use diffrax.HalfSolver({name}(…)), which compares one step "
            "with two halves, or an embedded pair such as diffrax.Tsit5()."
        )


class _State(NamedTuple):
    """The state of the wrapped controller, the step for the next interval to start with, and
    the one that was proposed last."""

    wrapped: PyTree
    proposal: ArrayLike
    latest: ArrayLike


class KeepsProposal(diffrax.AbstractStepSizeController):
    """A step size controller that keeps the step it would take next in its state, so that
    the next interval starts with it.

    The last step of an interval is cut short by the boundary. The step proposed before the
    cut is the better guess, so the larger of the two proposals is kept.
    """

    controller: diffrax.AbstractStepSizeController

    def wrap(self, direction):
        return KeepsProposal(self.controller.wrap(direction))

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        first_end, state = self.controller.init(terms, t0, t1, y0, dt0, args, func, error_order)
        proposal = first_end - t0
        return first_end, _State(state, proposal, proposal)

    def adapt_step_size(
        self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
    ):
        accepted, next_t0, next_t1, made_jump, state, result = self.controller.adapt_step_size(
            t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state.wrapped
        )
        latest = next_t1 - next_t0
        proposal = jnp.where(accepted, jnp.maximum(latest, controller_state.latest), latest)
        state = _State(state, proposal, latest)
        return accepted, next_t0, next_t1, made_jump, state, result


class TokenNorm(eqx.Module):
    """The root mean square over the tokens that are not padding and over features,

        ‖e‖² = Σ_j [w_j > 0] |e_j|² / (features Σ_j [w_j > 0]),

    w_j the quadrature weights of the domain.

    **Arguments:**

    - `weights`: `[..., tokens]`.
    """

    weights: Float[Array, "*batch tokens"]

    def __call__(self, error: PyTree[Array]) -> Float[Array, ""]:
        def squares(e):
            counted = jnp.broadcast_to((self.weights > 0)[..., None], e.shape)
            return jnp.sum(jnp.where(counted, e**2, 0)), jnp.sum(counted)

        sums = [squares(e) for e in jax.tree.leaves(error)]
        total = sum(total for total, _ in sums)
        number = sum(number for _, number in sums)
        # The derivative of a square root at zero is infinite; NaN stays NaN.
        zero = total == 0
        return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, total) / number))


def without_padding(controller: Any, domain: TokenDomain) -> Any:
    """The step size controller with padded tokens kept out of its error norm; one with a
    norm of its own keeps it."""
    if domain.weights is None:
        return controller
    norm = TokenNorm(domain.weights)

    def replace(pid, _):
        if pid.norm is not optx.rms_norm:
            return pid
        return eqx.tree_at(lambda pid: pid.norm, pid, norm)

    return map_parts(controller, diffrax.PIDController, replace)
