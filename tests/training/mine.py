"""Classes of a user, which configurations name `tests.training.mine:Class`."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

import ide_transformer as ide
from tests.typed.public_face import Ball as Ball, Counting as Counting, MyHeun as MyHeun


class Pull(ide.AbstractOperator):
    """`u_t = -strength rate ⊙ N(u)`."""

    rate: Array
    normalization: ide.AbstractConstraint
    strength: float = eqx.field(static=True)

    def __init__(
        self,
        features: int,
        *,
        normalization: ide.AbstractConstraint = ide.Free(),
        strength: float = 1.0,
    ):
        self.rate = jnp.full(features, 0.1)
        self.normalization, self.strength = normalization, strength

    def __call__(self, u, domain):
        rate = self.strength * jnp.broadcast_to(self.rate, u.shape)
        return -rate * self.normalization.project(u)


class Twice(ide.AbstractOperator):
    """`u_t = 2 A(u)`."""

    operator: ide.AbstractOperator

    def __call__(self, u, domain):
        return 2 * self.operator(u, domain)


class Ahead(ide.AbstractOperator):
    """`u_t = rate ⊙ (u(x + 1) - u(x))`: the answer is in the next token."""

    rate: Array

    def __call__(self, u, domain):
        rate = jnp.broadcast_to(self.rate, u.shape)
        return rate * (jnp.roll(u, -1, axis=-2) - u)


class Letters(ide.models.TextInputs):
    """Tokens as rows of a table, without positions."""

    @classmethod
    def build(cls, vocabulary: int, context: int, features: int, *, key):
        return cls(0.1 * jax.random.normal(key, (vocabulary, features)), context)


class Doubled(ide.models.TokenLogits):
    """Logits twice as large."""

    def __call__(self, u, inputs):
        return 2 * super().__call__(u, inputs)


class Straight(ide.AbstractExpansion):
    """`θ(t) = (1 - t/T) θ_first + (t/T) θ_last`."""

    coefficients: PyTree
    layers: int = eqx.field(static=True)
    interval_length: float = eqx.field(static=True, default=1.0)

    def basis(self, t):
        fraction = jnp.asarray(t) / self.horizon
        return jnp.stack([1 - fraction, fraction])

    @classmethod
    def build(cls, make_block, layers, *, key):
        return cls(eqx.filter_vmap(make_block)(jax.random.split(key, 2)), layers)
