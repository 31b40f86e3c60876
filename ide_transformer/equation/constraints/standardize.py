"""The scalings by mean, standard deviation and root mean square, with derivatives."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def standardize(
    v: Float[Array, "*batch features"], eps: float
) -> Float[Array, "*batch features"]:
    """`(v - α) / sqrt(β + eps)`, with α, β the mean and variance of `v` over features."""
    centred = v - jnp.mean(v, axis=-1, keepdims=True)
    variance = jnp.mean(centred * centred, axis=-1, keepdims=True)
    return centred * lax.rsqrt(variance + eps)


def standardize_tangent(
    v: Float[Array, "*batch features"], dv: Float[Array, "*batch features"], eps: float
) -> Float[Array, "*batch features"]:
    """The derivative of `standardize` at `v` along `dv`:

    (c - s ⟨s c⟩) / sqrt(β + eps),   s = standardize(v),   c = dv - ⟨dv⟩.
    """
    centred = v - jnp.mean(v, axis=-1, keepdims=True)
    scale = lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + eps)
    s = centred * scale
    c = dv - jnp.mean(dv, axis=-1, keepdims=True)
    return (c - s * jnp.mean(s * c, axis=-1, keepdims=True)) * scale


def scale_to_unit_rms(
    v: Float[Array, "*batch features"], eps: float
) -> Float[Array, "*batch features"]:
    """`v / sqrt(⟨v²⟩ + eps)`, the mean taken over features."""
    return v * lax.rsqrt(jnp.mean(v * v, axis=-1, keepdims=True) + eps)


def scale_to_unit_rms_tangent(
    v: Float[Array, "*batch features"], dv: Float[Array, "*batch features"], eps: float
) -> Float[Array, "*batch features"]:
    """The derivative of `scale_to_unit_rms` at `v` along `dv`."""
    scale = lax.rsqrt(jnp.mean(v * v, axis=-1, keepdims=True) + eps)
    s = v * scale
    return (dv - s * jnp.mean(s * dv, axis=-1, keepdims=True)) * scale


def standardized_residual(s: Float[Array, "*batch features"]) -> Float[Array, "*batch"]:
    """The larger of `|⟨s⟩|` and `|std(s) - 1|`."""
    return jnp.maximum(jnp.abs(jnp.mean(s, axis=-1)), jnp.abs(jnp.std(s, axis=-1) - 1))


def unit_rms_residual(s: Float[Array, "*batch features"]) -> Float[Array, "*batch"]:
    """`|sqrt(⟨s²⟩) - 1|`."""
    return jnp.abs(jnp.sqrt(jnp.mean(s * s, axis=-1)) - 1)


def mean_and_deviation(
    v: Float[Array, "*batch features"], eps: float
) -> tuple[Float[Array, "*batch 1"], Float[Array, "*batch 1"]]:
    """α and `sqrt(β + eps)`, which `standardize` loses."""
    mean = jnp.mean(v, axis=-1, keepdims=True)
    variance = jnp.mean((v - mean) ** 2, axis=-1, keepdims=True)
    return mean, jnp.sqrt(variance + eps)


def root_mean_square(
    v: Float[Array, "*batch features"], eps: float
) -> Float[Array, "*batch 1"]:
    """`sqrt(⟨v²⟩ + eps)`, which `scale_to_unit_rms` loses."""
    return jnp.sqrt(jnp.mean(v * v, axis=-1, keepdims=True) + eps)
