import jax.numpy as jnp
from jaxtyping import Array, Float

from .basis import AbstractBasis


class Legendre(AbstractBasis):
    """Legendre's polynomials, `φ_a(y) = √(2a+1) P_a(2y - 1)`. They are orthonormal at as many
    points as functions with the rule "gauss_legendre"; at as many points at equal distances
    they are far from it.
    """

    def __call__(
        self, y: Float[Array, " points"], number: int
    ) -> Float[Array, "points number"]:
        x = 2 * y - 1
        values = [jnp.ones_like(x), x]
        for a in range(1, number - 1):
            values.append(((2 * a + 1) * x * values[a] - a * values[a - 1]) / (a + 1))
        size = jnp.sqrt(2 * jnp.arange(number, dtype=y.dtype) + 1)
        return size[None] * jnp.stack(values[:number], axis=1)
