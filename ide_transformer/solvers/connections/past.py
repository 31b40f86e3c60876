"""Base class of schemes with weights for each step, and the states that they keep."""

import abc
from typing import ClassVar

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ...errors import InputError
from ..base.scheme import AbstractScheme
from ..base.step import Terms


class AbstractConnected(AbstractScheme):
    """A scheme with learned weights for each step. They belong to their step: there is no limit
    of small steps, and no order."""

    consistent: ClassVar[bool] = False

    @property
    @abc.abstractmethod
    def num_steps(self) -> int:
        """The steps for which it has weights; a solve of more is refused."""

    def order(self, terms: Terms) -> None:
        return None

    def projected(self) -> diffrax.AbstractSolver:
        """**Raises:** `InputError`: by default the states that are connected are on no
        constraint."""
        raise InputError(
            f"{type(self).__name__}: the states that it connects are on no constraint, so the "
            "equation needs constraint=Free(); or take LearnedMultistep, whose steps are "
            "projected."
        )


class Past(eqx.Module):
    """States or increments in the order in which they were made: the first `number` of
    `values: [slots, ..., tokens, features]`; those that follow are zero.

    A march keeps it at each step for the gradient, so memory grows with the square of the
    number of steps.
    """

    values: Float[Array, "slots *batch tokens features"]
    number: Int[Array, ""]

    @classmethod
    def of(cls, u: Float[Array, "*batch tokens features"], slots: int) -> "Past":
        """A past of one state, with room for `slots` of them."""
        values = jnp.zeros((slots, *u.shape), u.dtype)
        return cls(values.at[0].set(u), jnp.array(1))

    def plus(self, value: Float[Array, "*batch tokens features"]) -> "Past":
        """The past with one more value."""
        values = lax.dynamic_update_index_in_dim(
            self.values, value.astype(self.values.dtype), self.number, 0
        )
        return Past(values, self.number + 1)

    @property
    def known(self) -> Bool[Array, " slots"]:
        """Indicator of the slots that have a value."""
        return jnp.arange(self.values.shape[0]) < self.number
