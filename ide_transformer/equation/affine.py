"""The affine map over features and its inverse, by explicit broadcasting, so that the
package runs with rank promotion forbidden."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .shapes import Features


# A number for each feature, or one for all.
Vector = Float[Array, "*features"]


def optional_array(x: ArrayLike | None) -> Array | None:
    """Like `float_array`; `None` stays."""
    return None if x is None else float_array(x)


def float_array(x: ArrayLike) -> Array:
    """Numbers as arrays, so that they can be stacked over depth and trained."""
    return jnp.asarray(x, jnp.result_type(float, x))


def affine(s: Features, gain: Vector | None, bias: Vector | None) -> Features:
    """`gain ⊙ s + bias`; `None` is 1 and 0."""
    if gain is not None:
        s = s * _along_features(gain, s)
    if bias is not None:
        s = s + _along_features(bias, s)
    return s


def inverse_affine(u: Features, gain: Vector | None, bias: Vector | None) -> Features:
    """`(u - bias) / gain`; `None` is 1 and 0."""
    if bias is not None:
        u = u - _along_features(bias, u)
    if gain is not None:
        u = u / _along_features(gain, u)
    return u


def _along_features(vector: Array, u: Array) -> Array:
    return jnp.reshape(vector, (1,) * (u.ndim - vector.ndim) + vector.shape)
