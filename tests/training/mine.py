"""Classes of a user, which configurations name `training.mine:Class`."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from typed.public_face import MyHeun as MyHeun

import ide_transformer as ide
from ide_transformer import models, tasks


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


class Unsized(tasks.AbstractTask):
    """Halve a sequence of its own length; one batch serves for all parts and samples."""

    model: ClassVar = models.Model
    sizes: ClassVar = {}
    tokens_per_sample: ClassVar = 6

    def batch(self, step, size, seed):
        x = np.random.default_rng([seed, step]).normal(size=(size, 6))
        return tasks.Batch(x, x / 2)

    def held_out(self, size, samples=None, part="validation"):
        yield self.batch(0, 8, 0)


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
