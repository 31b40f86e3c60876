"""Adaptive steps: one diffrax solve per interval, so that no step crosses a jump."""

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
from ..solvers import evaluation_count, first_failure, prepare_solver
from .gradients import AbstractGradient
from .march import check_scheme, step_cost
from .mesh import Mesh
from .output import Start, Status, Trajectory, field_evaluations


def adapt(
    equation: Equation,
    scheme: diffrax.AbstractSolver,
    mesh: Mesh,
    start: Start,
    gradient: AbstractGradient,
) -> Trajectory:
    """Solves by a scheme with the step size controller of the mesh, in at most `mesh.max_steps`
    steps per interval."""
    u0, args, output = start
    check_scheme(equation, scheme, None)
    solver = prepare_solver(scheme, equation.constraint)
    length = equation.control.interval_length
    dtype = u0.dtype
    controller = mesh.controller
    assert controller is not None
    if equation.domain.weights is not None:
        controller = without_padding(controller, equation.domain.weights)
    controller = KeepsProposal(controller, type(scheme).__name__)
    saveat = diffrax.SaveAt(
        t1=True, dense=output.dense, controller_state=True, solver_state=True
    )

    def solve_interval(carry, inputs):
        u, dt0, status = carry
        index, weights = inputs
        beginning = index * length
        succeeded = status.result == diffrax.RESULTS.successful
        solution = diffrax.diffeqsolve(
            equation.interval_terms(index, weights),
            solver,
            t0=beginning,
            t1=jnp.where(succeeded, beginning + length, beginning),
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
        count = evaluation_count(solution.solver_state)
        return (u, lax.stop_gradient(dt0), status), (u, solution.interpolation, stats, count)

    carry = u0, jnp.array(length, dtype), Status.start(dtype)
    indices = jnp.arange(equation.control.layers, dtype=dtype)
    (u1, _, status), (states, interpolation, stats, count) = gradient.scan(
        solve_interval, carry, (indices, equation.intervals())
    )
    cost = step_cost(equation, solver, u0.shape[-1], args)
    (total, rejected, firsts), count = jax.tree.map(jnp.sum, (stats, count))
    evaluations = field_evaluations(cost, total, firsts, count)
    return Trajectory(u1, states, interpolation, status, total, rejected, evaluations)


class _State(NamedTuple):
    wrapped: PyTree
    # The step size for the next interval, and the latest step size of the controller.
    proposal: ArrayLike
    latest: ArrayLike
    # Whether a step of the interval was accepted, and how often the first one was tried.
    has_accepted: Bool[Array, ""]
    firsts: Int[Array, ""]


class KeepsProposal(diffrax.AbstractStepSizeController):
    """A controller that keeps its proposed step size where a boundary shortens the step."""

    controller: diffrax.AbstractStepSizeController
    # The name of the scheme, for error messages.
    scheme: str = eqx.field(static=True)

    def wrap(self, direction):
        return KeepsProposal(self.controller.wrap(direction), self.scheme)

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        first_end, state = self.controller.init(terms, t0, t1, y0, dt0, args, func, error_order)
        proposal = first_end - t0
        return first_end, _State(state, proposal, proposal, jnp.array(False), jnp.array(0))

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
        has_accepted = controller_state.has_accepted
        proposal = jnp.where(accepted, jnp.maximum(latest, controller_state.latest), latest)
        firsts = controller_state.firsts + ~has_accepted
        state = _State(state, proposal, latest, has_accepted | accepted, firsts)
        return accepted, next_t0, next_t1, made_jump, state, result


class TokenNorm(eqx.Module):
    """The root mean square over features and over tokens of positive weight."""

    weights: Float[Array, "*batch tokens"]

    def __call__(self, error: State) -> Float[Array, ""]:
        is_real = jnp.broadcast_to((self.weights > 0)[..., None], error.shape)
        return root(jnp.sum(jnp.where(is_real, error**2, 0)) / jnp.sum(is_real))


def without_padding(
    controller: diffrax.AbstractStepSizeController, weights: Array
) -> diffrax.AbstractStepSizeController:
    """Excludes padding from the error norm of a controller, if it is the default norm."""

    def replace_norm(controller, _):
        if controller.norm is not optx.rms_norm:
            return controller
        return eqx.tree_at(lambda x: x.norm, controller, TokenNorm(weights))

    return map_parts(controller, diffrax.PIDController, replace_norm)
