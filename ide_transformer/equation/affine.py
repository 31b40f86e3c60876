"""The affine map over features and its inverse, by explicit broadcasting, so that the
package runs with rank promotion forbidden."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float


def optional_array(x: ArrayLike | None) -> Array | None:
    """Numbers as arrays, so that they may be stacked over depth and trained."""
    return None if x is None else float_array(x)


def float_array(x: ArrayLike) -> Array:
    """As `optional_array`, for what is always there."""
    return jnp.asarray(x, jnp.result_type(float, x))


def affine(
    s: Float[Array, "*batch features"],
    gain: Float[Array, "*features"] | None,
    bias: Float[Array, "*features"] | None,
) -> Float[Array, "*batch features"]:
    """`gain ⊙ s + bias`; `None` is 1 and 0."""
    if gain is not None:
        s = s * _along_features(gain, s)
    if bias is not None:
        s = s + _along_features(bias, s)
    return s


def inverse_affine(
    u: Float[Array, "*batch features"],
    gain: Float[Array, "*features"] | None,
    bias: Float[Array, "*features"] | None,
) -> Float[Array, "*batch features"]:
    """`(u - bias) / gain`; `None` is 1 and 0."""
    if bias is not None:
        u = u - _along_features(bias, u)
    if gain is not None:
        u = u / _along_features(gain, u)
    return u


def _along_features(vector: Array, u: Array) -> Array:
    return jnp.reshape(vector, (1,) * (u.ndim - vector.ndim) + vector.shape)
