"""How attention sees the positions of tokens."""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..domain import TokenDomain


class AbstractPositions(eqx.Module):
    """A map of queries and keys that may depend on where their tokens lie."""

    @abc.abstractmethod
    def __call__(
        self, x: Float[Array, "*batch tokens heads features"], domain: TokenDomain
    ) -> Float[Array, "*batch tokens heads features"]:
        """Queries or keys with their positions in."""


class NoPositions(AbstractPositions):
    """Attention depends on the state only."""

    def __call__(
        self, x: Float[Array, "*batch tokens heads features"], domain: TokenDomain
    ) -> Float[Array, "*batch tokens heads features"]:
        return x


class Rotary(AbstractPositions):
    """Rotary positions (Su et al., arXiv 2104.09864): features `i` and `i + d/2` of a
    head turn by the angle `x base^(-2i/d)`, so scores depend on differences `x - x'`.

    **Arguments:**

    - `base`: the ratio of the longest to the shortest wavelength, in the limit.
    """

    base: float = eqx.field(static=True, default=10000.0)

    def __call__(
        self, x: Float[Array, "*batch tokens heads features"], domain: TokenDomain
    ) -> Float[Array, "*batch tokens heads features"]:
        half = x.shape[-1] // 2
        frequency = self.base ** (-jnp.arange(half, dtype=domain.points.dtype) / half)
        angle = domain.positions[:, None, None] * frequency[None, None, :]
        angle = jnp.broadcast_to(angle, (*x.shape[:-3], x.shape[-3], 1, half))
        cos, sin = jnp.cos(angle).astype(x.dtype), jnp.sin(angle).astype(x.dtype)
        first, second = x[..., :half], x[..., half:]
        return jnp.concatenate(
            [first * cos - second * sin, second * cos + first * sin], axis=-1
        )
