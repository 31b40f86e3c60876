"""The integral over features, ⟨W(·,y), u(x,·)⟩_Ωy + b(y), shared by the operators."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..broadcast import along_features


class Linear(eqx.Module):
    """`u ↦ u W + b`, `W: [in, out]`, `b: [out]` or 0."""

    weight: Float[Array, "in out"]
    bias: Float[Array, " out"] | float

    def __init__(
        self, features_in: int, features_out: int, *, bias: bool, std: float, key: PRNGKeyArray
    ):
        self.weight = std * jax.random.normal(key, (features_in, features_out))
        self.bias = jnp.zeros(features_out) if bias else 0.0

    def __call__(self, u: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        return u @ self.weight + along_features(self.bias, u)
