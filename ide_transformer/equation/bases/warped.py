import jax.numpy as jnp
from jaxtyping import Array, Float

from ...arguments import PositiveInt
from .basis import AbstractBasis
from .cosine import Cosine


class Warped(AbstractBasis):
    """Cosines of a coordinate that is learned,

        φ_a(y) = √g'(y) c_a(g(y)),   g(y) = y + Σ_k s_k sin(kπy) / (kπ),

    c_a those of `Cosine`, and `s_k = 0.9 tanh(θ_k) / waves`, so that g' is positive. They are
    orthonormal whatever θ is. Where g' is large, functions change fast. At θ = 0, where it
    starts, it is `Cosine`.

    **Arguments:**

    - `waves`: the number of θ_k.
    """

    theta: Float[Array, " waves"]

    def __init__(self, waves: PositiveInt = 4):
        self.theta = jnp.zeros(waves)

    def __call__(
        self, y: Float[Array, " points"], number: int
    ) -> Float[Array, "points number"]:
        waves = len(self.theta)
        k = jnp.pi * jnp.arange(1, waves + 1, dtype=y.dtype)
        size = (0.9 / waves * jnp.tanh(self.theta)).astype(y.dtype)
        angles = jnp.outer(y, k)
        warped = y + jnp.sin(angles) @ (size / k)
        slope = 1 + jnp.cos(angles) @ size
        return jnp.sqrt(slope)[:, None] * Cosine()(warped, number)
