from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, ArrayLike, Float, PyTree

from ...equation import TokenDomain, map_parts


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
