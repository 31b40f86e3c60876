import jax.numpy as jnp
from jaxtyping import Array, Float

from .basis import AbstractBasis


class Waves(AbstractBasis):
    """1, `√2 sin 2πy`, `√2 cos 2πy`, `√2 sin 4πy`, …: the Fourier series of functions on a
    circle. Give an odd number of them, or more points than functions: at as many points the
    last one of an even number has another norm than 1.
    """

    def __call__(
        self, y: Float[Array, " points"], number: int
    ) -> Float[Array, "points number"]:
        a = jnp.arange(number)
        angles = 2 * jnp.pi * jnp.outer(y, ((a + 1) // 2).astype(y.dtype))
        waves = jnp.where((a % 2 == 1)[None], jnp.sin(angles), jnp.cos(angles))
        size = jnp.where(a == 0, 1.0, jnp.sqrt(2.0))[None]
        return size.astype(y.dtype) * waves
