import jax.numpy as jnp
from jaxtyping import Array, Float

from .basis import AbstractBasis


class Cosine(AbstractBasis):
    """`φ_0 = 1`, `φ_a(y) = √2 cos(aπy)`: smooth functions, whose values at both ends are free.
    At as many midpoints as functions this is the discrete cosine transform, an orthogonal
    matrix. Here the midpoint rule is of more than second order: a cosine series is even about
    both ends, so that they are no ends for it.
    """

    def __call__(
        self, y: Float[Array, " points"], number: int
    ) -> Float[Array, "points number"]:
        a = jnp.arange(number)
        size = jnp.where(a == 0, 1.0, jnp.sqrt(2.0))[None]
        return size.astype(y.dtype) * jnp.cos(jnp.pi * jnp.outer(y, a.astype(y.dtype)))
