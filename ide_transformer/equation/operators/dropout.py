import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..domain import TokenDomain
from ..shapes import State
from .random_operator import AbstractRandomOperator


class Dropout(AbstractRandomOperator):
    """An operator whose rate is zeroed at random places and scaled up at the others:

        du/dt = m/(1-p) ⊙ A(u),   m ~ Bernoulli(1-p) for each token and feature.

    Without a key the operator is unchanged.

    **Arguments:**

    - `operator`: A.
    - `rate`: p in [0, 1).
    """

    def __call__(self, u: State, domain: TokenDomain) -> State:
        return drop(self.operator(u, domain), self.rate, self.key)


def drop(
    x: Float[Array, "*shape"], rate: float, key: PRNGKeyArray | None
) -> Float[Array, "*shape"]:
    """`x` with a fraction `rate` of its entries zeroed and the rest divided by `1 - rate`;
    unchanged without a key or a rate."""
    if key is None or rate == 0:
        return x
    keep = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(keep, x / (1 - rate), 0)
