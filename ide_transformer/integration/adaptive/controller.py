from typing import Any

import diffrax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


class KeepsProposal(diffrax.AbstractStepSizeController):
    """A step size controller that keeps the step it would take next in its state, so that
    the next interval starts with it.

    The last step of an interval is cut short by the boundary; the step proposed before
    the cut is the better guess, hence the larger of the two proposals is kept.

    **Arguments:**

    - `controller`: the wrapped controller.
    """

    controller: diffrax.AbstractStepSizeController

    def wrap(self, direction):
        return KeepsProposal(self.controller.wrap(direction))

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        first_end, state = self.controller.init(terms, t0, t1, y0, dt0, args, func, error_order)
        proposal = first_end - t0
        return first_end, (state, proposal, proposal)

    def adapt_step_size(
        self,
        t0: Float[Array, ""],
        t1: Float[Array, ""],
        y0: PyTree[Array],
        y1_candidate: PyTree[Array],
        args: PyTree,
        y_error: PyTree[Array] | None,
        error_order: Any,
        controller_state: tuple,
    ) -> tuple:
        state, _, attempted = controller_state
        accepted, next_t0, next_t1, made_jump, state, result = self.controller.adapt_step_size(
            t0, t1, y0, y1_candidate, args, y_error, error_order, state
        )
        proposal = next_t1 - next_t0
        following = jnp.where(accepted, jnp.maximum(proposal, attempted), proposal)
        return (
            accepted,
            next_t0,
            next_t1,
            made_jump,
            (state, following, proposal),
            result,
        )
