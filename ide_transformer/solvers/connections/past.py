"""All that a scheme has computed so far."""

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int


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
