"""The steps that an adaptive solve tries."""

from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from ...models import Model


class Attempts(NamedTuple):
    """The steps that an adaptive solve tried, by their beginning: `[attempts]` each.

    - `depths`: where they begin.
    - `sizes`: in layers.
    - `accepted`: whether the solve went on from their end.
    """

    depths: np.ndarray
    sizes: np.ndarray
    accepted: np.ndarray


def step_attempts(model: Model, inputs: PyTree) -> Attempts | None:
    """The steps of a solve of some inputs, the same for all of them; `None` for a model that is
    solved with equal steps."""
    controller = model.discretization.stepsize_controller
    if controller is None:
        return None
    tried: list[tuple[float, float, bool]] = []

    def note(t0: Any, t1: Any, accepted: Any) -> None:
        tried.append((float(t0), float(t1 - t0), bool(accepted)))

    watched = _Watched(controller, note)
    watched_model = model.with_options(stepsize_controller=watched, steps_for="batch")
    jax.block_until_ready(watched_model.solve(inputs).u1)
    jax.effects_barrier()
    # The device may report them in any order; a step that is refused is tried again, smaller.
    ordered = sorted(tried, key=lambda step: (step[0], -step[1]))
    depths, sizes, accepted = np.array(ordered, float).reshape(-1, 3).T
    return Attempts(depths, sizes, accepted.astype(bool))


class _Watched(diffrax.AbstractStepSizeController):
    """A step size controller that calls `note` with the ends of each step and whether it was
    accepted."""

    controller: diffrax.AbstractStepSizeController
    note: Callable[[Any, Any, Any], None] = eqx.field(static=True)

    def wrap(self, direction):
        return _Watched(self.controller.wrap(direction), self.note)

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        return self.controller.init(terms, t0, t1, y0, dt0, args, func, error_order)

    def adapt_step_size(self, t0, t1, *others, **named):
        result = self.controller.adapt_step_size(t0, t1, *others, **named)
        jax.debug.callback(self.note, t0, t1, result[0])
        return result
