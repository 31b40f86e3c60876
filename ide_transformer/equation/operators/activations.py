"""The pointwise nonlinearities σ of the feed-forward."""

import jax
from jaxtyping import Array, Float


def relu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`max(x, 0)`, the projection on S2."""
    return jax.nn.relu(x)


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`x Φ(x)` with the exact normal distribution function."""
    return jax.nn.gelu(x, approximate=False)


def gelu_tanh(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`x Φ(x)` with Φ approximated by a hyperbolic tangent (GPT-2's)."""
    return jax.nn.gelu(x, approximate=True)


def silu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`x / (1 + exp(-x))`."""
    return jax.nn.silu(x)


def quick_gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`x / (1 + exp(-1.702 x))`, a cheap likeness of `gelu`."""
    return x * jax.nn.sigmoid(1.702 * x)
