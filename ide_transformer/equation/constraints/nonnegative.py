import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..shapes import Features
from .constraint import AbstractConstraint


class Nonnegative(AbstractConstraint):
    """The set S2 = { u : u ≥ 0 } of the paper; its projection is the ReLU.

    S2 does not meet S1 with σ1 = 0: never impose both on one state. The ReLU of a
    feed-forward acts inside the field, on the features of `FeedForward`.
    """

    def project(self, u: Features) -> Features:
        return jax.nn.relu(u)

    def tangent(self, u: Features, du: Features) -> Features:
        return jnp.where(u > 0, du, jnp.where(u < 0, 0, jax.nn.relu(du)))

    def residual(self, u: Features) -> Float[Array, "*batch"]:
        return jnp.max(jax.nn.relu(-u), axis=-1)
