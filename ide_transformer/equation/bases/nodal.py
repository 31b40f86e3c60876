import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .basis import AbstractBasis


class Nodal(AbstractBasis):
    """Functions that are constant on each of `number` equal parts, `φ_a = √number` on part a
    and 0 elsewhere. At the middles of the parts, coefficients are values and kernels the
    matrices of an ordinary Transformer; with r points in each part every feature is there r
    times.
    """

    def __call__(
        self, y: Float[Array, " points"], number: int
    ) -> Float[Array, "points number"]:
        # The beginning of a part, j / number, may be rounded to below it.
        above = 1 + 4 * jnp.finfo(y.dtype).eps
        part = jnp.clip(jnp.floor(y * number * above).astype(int), 0, number - 1)
        return jnp.sqrt(jnp.asarray(number, y.dtype)) * jax.nn.one_hot(
            part, number, dtype=y.dtype
        )
