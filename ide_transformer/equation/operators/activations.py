"""The pointwise nonlinearities σ of the feed-forward."""

import math
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ...arguments import checked


Activation: TypeAlias = Callable[[Array], Array]


@checked
def relu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`max(x, 0)`, the projection on S2."""
    return jax.nn.relu(x)


@checked
def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`x Φ(x)` with the exact normal distribution function Φ. Its derivative,
    `Φ(x) + x φ(x)`, needs nothing but x."""
    return _gelu(x)


@jax.custom_jvp
def _gelu(x: Array) -> Array:
    return x * _normal_distribution(x)


@_gelu.defjvp
def _gelu_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    density = jnp.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return _gelu(x), (_normal_distribution(x) + x * density) * dx


def _normal_distribution(x: Array) -> Array:
    return 0.5 * (1 + lax.erf(x / math.sqrt(2)))


@checked
def gelu_tanh(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`x Φ(x)` with Φ approximated by a hyperbolic tangent (GPT-2's)."""
    return jax.nn.gelu(x, approximate=True)


@checked
def silu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`x / (1 + exp(-x))`."""
    return jax.nn.silu(x)


@checked
def quick_gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`x / (1 + exp(-1.702 x))`, a cheap approximation of `gelu`."""
    return x * jax.nn.sigmoid(1.702 * x)
