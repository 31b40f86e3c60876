"""States of an encoder, as a decoder sees them."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..equation import TokenDomain


class Encoded(NamedTuple):
    """States of an encoder at depth T, on the domain Ω_x' over which cross-attention
    integrates.

    - `states`: `[..., tokens, features]`.
    - `weights`: `[..., tokens]`, the quadrature weights of Ω_x' with the batch axes of the
      states, zero at padding; `None` for equal weights.
    """

    states: Float[Array, "*batch tokens features"]
    weights: Float[Array, "*batch tokens"] | None = None

    @classmethod
    def on(
        cls, domain: TokenDomain, states: Float[Array, "*batch tokens features"]
    ) -> "Encoded":
        """States on a domain."""
        if domain.weights is None:
            return cls(states)
        return cls(states, jnp.broadcast_to(domain.weights, states.shape[:-1]))

    @property
    def domain(self) -> TokenDomain:
        """Ω_x', at unit spacing: cross-attention depends on its weights only."""
        points = TokenDomain.uniform(self.states.shape[-2]).points
        return TokenDomain(points, self.weights)
