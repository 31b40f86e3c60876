"""Adaptive steps: one diffrax solve in each interval, so that no step crosses a jump."""

from typing import NamedTuple, cast

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree

from ..equation import Equation, State, map_parts
from ..equation.arrays import root
from ..errors import InputError
from ..solvers import evaluations_made, first_failure, prepared
from .gradients import AbstractGradient
from .march import check_scheme, step_cost
from .mesh import Mesh
from .output import Start, Status, Trajectory, field_evaluations


def adapt(
    equation: Equation,
    given: diffrax.AbstractSolver,
    mesh: Mesh,
    start: Start,
    gradient: AbstractGradient,
) -> Trajectory:
    """Solves by the `given` scheme with the controller of the mesh, by at most `mesh.max_steps`
    steps per interval."""
    u0, args, output = start
    check_scheme(equation, given, None)
    solver = prepared(given, equation.constraint)
    length = equation.control.interval_length
    dtype = u0.dtype
    controller = mesh.stepsize_controller
    assert controller is not None
    if equation.domain.weights is not None:
        controller = without_padding(controller, equation.domain.weights)
    controller = KeepsProposal(controller, type(given).__name__)
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
            solver,
            t0=beginning,
            t1=jnp.where(going_on, beginning + length, beginning),
            dt0=jnp.minimum(dt0, length),
            y0=u,
            args=args,
            saveat=saveat,
            stepsize_controller=controller,
            adjoint=gradient.adjoint(),
            max_steps=mesh.max_steps,
            throw=False,
        )
        assert solution.ys is not None and solution.ts is not None
        u = solution.ys[0]
        result = first_failure(status.result, solution.result)
        status = status.after(result, u, solution.ts[0])
        state = cast(_State, solution.controller_state)
        dt0 = jnp.asarray(state.proposal, dtype)
        rejected = solution.stats["num_rejected_steps"]
        stats = solution.stats["num_steps"], rejected, state.firsts
        counted = evaluations_made(solution.solver_state)
        return (u, lax.stop_gradient(dt0), status), (u, solution.interpolation, stats, counted)

    carry = u0, jnp.array(length, dtype), Status.start(dtype)
    indices = jnp.arange(equation.control.layers, dtype=dtype)
    (u1, _, status), (states, interpolation, stats, counted) = gradient.scan(
        interval, carry, (indices, equation.intervals())
    )
    cost = step_cost(equation, solver, u0.shape[-1], args)
    (total, rejected, firsts), counted = jax.tree.map(jnp.sum, (stats, counted))
    evaluations = field_evaluations(cost, total, firsts, counted)
    return Trajectory(u1, states, interpolation, status, total, rejected, evaluations)


class _State(NamedTuple):
    wrapped: PyTree
    # The step for the next interval, and the last step.
    proposal: ArrayLike
    latest: ArrayLike
    # Whether a step of the interval was accepted, and how often the first one was tried.
    begun: Bool[Array, ""]
    firsts: Int[Array, ""]


class KeepsProposal(diffrax.AbstractStepSizeController):
    """A controller that remembers the step it proposed before a boundary cut it."""

    controller: diffrax.AbstractStepSizeController
    # The name of the scheme, for an error.
    scheme: str = eqx.field(static=True)

    def wrap(self, direction):
        return KeepsProposal(self.controller.wrap(direction), self.scheme)

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        first_end, state = self.controller.init(terms, t0, t1, y0, dt0, args, func, error_order)
        proposal = first_end - t0
        begun = jnp.array(False)
        return first_end, _State(state, proposal, proposal, begun, jnp.array(0))

    def adapt_step_size(
        self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
    ):
        if y_error is None:
            raise InputError(
                f"solve: {self.scheme} has no error estimate; use diffrax.Tsit5(), "
                f"ide.LieStrang(), or diffrax.HalfSolver({self.scheme}(…))."
            )
        accepted, next_t0, next_t1, made_jump, state, result = self.controller.adapt_step_size(
            t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state.wrapped
        )
        latest = next_t1 - next_t0
        begun = controller_state.begun
        proposal = jnp.where(accepted, jnp.maximum(latest, controller_state.latest), latest)
        firsts = controller_state.firsts + ~begun
        state = _State(state, proposal, latest, begun | accepted, firsts)
        return accepted, next_t0, next_t1, made_jump, state, result


class TokenNorm(eqx.Module):
    """The root mean square over features and over tokens of positive weight."""

    weights: Float[Array, "*batch tokens"]

    def __call__(self, error: State) -> Float[Array, ""]:
        counted = jnp.broadcast_to((self.weights > 0)[..., None], error.shape)
        return root(jnp.sum(jnp.where(counted, error**2, 0)) / jnp.sum(counted))


def without_padding(
    controller: diffrax.AbstractStepSizeController, weights: Array
) -> diffrax.AbstractStepSizeController:
    """Keeps padded tokens out of the error norm of a controller, if it is the default norm."""

    def replace(pid, _):
        if pid.norm is not optx.rms_norm:
            return pid
        return eqx.tree_at(lambda pid: pid.norm, pid, TokenNorm(weights))

    return map_parts(controller, diffrax.PIDController, replace)
