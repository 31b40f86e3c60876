from typing import Any, NamedTuple

import diffrax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree


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

    **Arguments:**

    - `controller`: the wrapped controller.
    """

    controller: diffrax.AbstractStepSizeController

    def proposal(self, state: PyTree) -> ArrayLike:
        """The step that would be taken next."""
        return state.proposal

    def wrap(self, direction):
        return KeepsProposal(self.controller.wrap(direction))

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        first_end, state = self.controller.init(terms, t0, t1, y0, dt0, args, func, error_order)
        proposal = first_end - t0
        return first_end, _State(state, proposal, proposal)

    def adapt_step_size(
        self,
        t0: Float[Array, ""],
        t1: Float[Array, ""],
        y0: PyTree[Array],
        y1_candidate: PyTree[Array],
        args: PyTree,
        y_error: PyTree[Array] | None,
        error_order: Any,
        controller_state: _State,
    ) -> tuple:
        before = controller_state
        accepted, next_t0, next_t1, made_jump, state, result = self.controller.adapt_step_size(
            t0, t1, y0, y1_candidate, args, y_error, error_order, before.wrapped
        )
        latest = next_t1 - next_t0
        proposal = jnp.where(accepted, jnp.maximum(latest, before.latest), latest)
        state = _State(state, proposal, latest)
        return accepted, next_t0, next_t1, made_jump, state, result
