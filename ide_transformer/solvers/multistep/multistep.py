import abc
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from ..base.scheme import AbstractFieldScheme
from ..base.step import Step, StepField, U


class History(eqx.Module):
    """The past of a multistep scheme, newest step first.

    - `samples`: what the scheme keeps of each step.
    - `lengths`: those of the steps.
    - `known`: how many steps belong to the same smooth piece of the field.
    """

    samples: tuple[U, ...]
    lengths: tuple[Float[Array, ""], ...]
    known: Int[Array, ""]


class AbstractMultistep(AbstractFieldScheme):
    """A scheme that uses the last steps. It starts, and starts again where the field jumps,
    with a step that needs none."""

    restarts: ClassVar[bool] = True

    # How many steps it keeps.
    kept: eqx.AbstractClassVar[int]

    def sample(self, u: U, rate: U) -> U:
        """The value kept of a step; by default the field at its beginning."""
        return rate

    @abc.abstractmethod
    def first_step(self, field: StepField, u: U, increment: U) -> U:
        """The state after a step without a past.

        **Arguments:**

        - `increment`: `field(0, u)`.
        """

    @abc.abstractmethod
    def next_step(self, field: StepField, u: U, increment: U, history: History) -> U:
        """The state after a step with a past; arguments as for `first_step`."""

    def start(self, field: StepField, u: U) -> History:
        nothing = jax.tree.map(jnp.zeros_like, self.sample(u, u))
        length = jnp.asarray(field.h, _dtype(u))
        return History((nothing,) * self.kept, (length,) * self.kept, jnp.array(0))

    def make_step(self, field: StepField, u: U, state: PyTree, made_jump: PyTree) -> Step:
        known = jnp.where(made_jump, 0, state.known)
        history = History(state.samples, state.lengths, known)
        h, increment = jnp.asarray(field.h, _dtype(u)), field(0, u)
        y1 = lax.cond(
            known == 0,
            lambda: self.first_step(field, u, increment),
            lambda: self.next_step(field, u, increment, history),
        )
        y1 = jax.tree.map(lambda y, u: y.astype(u.dtype), y1, u)
        rate = jax.tree.map(lambda k: k / h, increment)
        state = History(
            samples=(self.sample(u, rate), *state.samples[:-1]),
            lengths=(h, *state.lengths[:-1]),
            known=jnp.minimum(known + 1, self.kept),
        )
        return Step.between(u, y1, state=state)


def _dtype(u: U) -> Any:
    return jax.tree.leaves(u)[0].dtype
