import jax.numpy as jnp
from jaxtyping import Array, Float

from ...errors import InputError
from ..feature_domain import FeatureDomain
from .basis import AbstractBasis


class Waves(AbstractBasis):
    """1, `√2 sin 2πy`, `√2 cos 2πy`, `√2 sin 4πy`, …: the Fourier series of functions on a
    circle.

    **Raises:** `InputError`, in a `FunctionSpace`, for an even number of them at as many points
    of equal weight, where the last one has another norm than 1, or none.
    """

    def __call__(
        self, y: Float[Array, " points"], number: int
    ) -> Float[Array, "points number"]:
        a = jnp.arange(number)
        angles = 2 * jnp.pi * jnp.outer(y, ((a + 1) // 2).astype(y.dtype))
        waves = jnp.where((a % 2 == 1)[None], jnp.sin(angles), jnp.cos(angles))
        size = jnp.where(a == 0, 1.0, jnp.sqrt(2.0))[None]
        return size.astype(y.dtype) * waves

    def check(self, domain: FeatureDomain, number: int) -> None:
        if domain.equal and number % 2 == 0 and number == domain.features:
            raise InputError(
                f"Waves: {number} functions at as many points, which see the last wave of an "
                "even number only at its ends or its zeros; give more points than functions, "
                "that is a width above the modes."
            )
