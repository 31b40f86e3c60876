"""Array types, and affine maps over features."""

from typing import TYPE_CHECKING, Annotated, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Real

from ..arguments import above, at_least
from ..errors import InputError


# A depth t, counted in layers: a number or a scalar array.
if TYPE_CHECKING:
    Depth: TypeAlias = float | jax.Array | np.ndarray
else:
    Depth = Float[ArrayLike, ""] | Int[ArrayLike, ""]

# The state u, or its rate du/dt.
State: TypeAlias = Float[Array, "*batch tokens features"]

# Vectors of features, such as the tokens of a state.
Features: TypeAlias = Float[Array, "*batch features"]

# A number for each feature, or one for all.
Vector = Float[Array, "*features"]

# Numbers that a user passes.
Numbers: TypeAlias = Real[ArrayLike, "..."]


def float_array(x: Numbers) -> Array:
    """Converts to an array of floats, which can be stacked over depth and trained."""
    return jnp.asarray(x, jnp.result_type(float, x))


def optional_array(x: Numbers | None) -> Array | None:
    return None if x is None else float_array(x)


def nonnegative_array(x: Annotated[Numbers, at_least(0)]) -> Array:
    return float_array(x)


def optional_positive_array(x: Annotated[Numbers, above(0)] | None) -> Array | None:
    return optional_array(x)


def root(square: Float[Array, "..."]) -> Float[Array, "..."]:
    """The square root, with derivative 0 instead of ∞ at 0."""
    zero = square == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, square)))


def affine(s: Features, gain: Vector | None, bias: Vector | None = None) -> Features:
    """`gain ⊙ s + bias`; `None` stands for 1 and 0."""
    if gain is not None:
        s = s * _along_features(gain, s)
    if bias is not None:
        s = s + _along_features(bias, s)
    return s


def inverse_affine(u: Features, gain: Vector | None, bias: Vector | None) -> Features:
    """`(u - bias) / gain`; `None` stands for 1 and 0."""
    if bias is not None:
        u = u - _along_features(bias, u)
    if gain is not None:
        u = u / _along_features(gain, u)
    return u


def _along_features(vector: Array, u: Array) -> Array:
    if vector.shape not in ((), u.shape[-1:]):
        raise InputError(
            f"A gain, bias or rate has shape {vector.shape}; pass one number, or one for each "
            f"of {u.shape[-1]} features."
        )
    # JAX may be set to forbid broadcasting of missing axes.
    shape = (1,) * (u.ndim - vector.ndim) + vector.shape
    return jnp.reshape(vector, shape).astype(u.dtype)
