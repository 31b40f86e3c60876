from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ...arguments import Fraction
from ..domain import TokenDomain
from ..shapes import State
from .operator import AbstractWrappedOperator


class Dropout(AbstractWrappedOperator):
    """An operator whose rate is zeroed at random places and scaled up at the others:

        du/dt = m/(1-p) ⊙ A(u),   m ~ Bernoulli(1-p) for each token and feature.

    The mask is a function of the key alone, so every stage of a step sees the same field.
    Without a key the operator is unchanged. `Sampled` draws one key for each interval.

    **Arguments:**

    - `operator`: A.
    - `rate`: p in [0, 1).
    """

    rate: Fraction = eqx.field(static=True)
    key: PRNGKeyArray | None = None

    configurable: ClassVar[bool] = False

    def __call__(self, u: State, domain: TokenDomain) -> State:
        return drop(self.operator(u, domain), self.rate, self.key)

    def with_key(self, key: PRNGKeyArray) -> "Dropout":
        """The same operator with another mask."""
        return Dropout(self.operator, self.rate, key)


def drop(
    x: Float[Array, "*shape"], rate: float, key: PRNGKeyArray | None
) -> Float[Array, "*shape"]:
    """`x` with a fraction `rate` of its entries zeroed and the rest divided by `1 - rate`;
    unchanged without a key or a rate."""
    if key is None or rate == 0:
        return x
    keep = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(keep, x / (1 - rate), 0)
