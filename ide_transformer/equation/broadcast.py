"""Explicit broadcasting, so that the package runs with rank promotion forbidden."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def along_features(
    vector: Float[Array, " features"] | float, u: Float[Array, "... features"]
) -> Float[Array, "..."] | float:
    """A vector over features, shaped to combine with `u: [..., tokens, features]`."""
    if jnp.ndim(vector) == 0:
        return vector
    return jnp.reshape(vector, (1,) * (u.ndim - 1) + jnp.shape(vector))
