"""The integral over features, ⟨W(·,y), u(x,·)⟩_Ωy + b(y), shared by the operators."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ...arguments import NonNegativeFloat, PositiveInt
from ..arrays import affine
from ..devices import token_devices
from ..function_space import FeatureMap
from ..tree import with_fields


class Linear(eqx.Module):
    """`u ↦ u W + b`, `W: [in, out]`, `b: [out]`, or no bias."""

    weight: Float[Array, "in out"]
    bias: Float[Array, " out"] | None

    def __init__(
        self,
        features_in: PositiveInt,
        features_out: PositiveInt,
        *,
        key: PRNGKeyArray,
        bias: bool = True,
        std: NonNegativeFloat = 0.02,
    ):
        self.weight = std * jax.random.normal(key, (features_in, features_out))
        self.bias = jnp.zeros(features_out) if bias else None

    def at_points(self, into: FeatureMap, out: FeatureMap) -> "Linear":
        """The integral `∫ W(·, ξ) u(ξ) dξ + b` of which the weights are coefficients, from
        functions of the map `into` to those of `out`."""
        weight = into.of_duals(out.of_values(self.weight).T).T
        bias = None if self.bias is None else out.of_values(self.bias)
        return with_fields(self, weight=weight, bias=bias)

    def times(self, factor: float) -> "Linear":
        """The map whose outputs are `factor` times as large."""
        return jax.tree.map(lambda x: factor * x, self)

    def __call__(self, u: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        return affine(product(u, self.weight), None, self.bias)


def product(
    u: Float[Array, "*batch in"], weight: Float[Array, "in out"]
) -> Float[Array, "*batch out"]:
    """`u W`, computed in the dtype of the weights and returned in that of the state, so that
    weights of bfloat16 give cheap products and the state keeps its precision."""
    if token_devices() > 1:
        # Samples and tokens that are both divided among devices have no common axis.
        return (u.astype(weight.dtype) @ weight).astype(u.dtype)
    # On one axis of tokens: the gradient of a product on several copies both factors first.
    flat = u.reshape(-1, u.shape[-1]).astype(weight.dtype)
    return (flat @ weight).astype(u.dtype).reshape(*u.shape[:-1], weight.shape[1])
