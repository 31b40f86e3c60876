"""Classes of a user, which configurations name `tests.training.mine:Class`."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

import ide_transformer as ide
from ide_transformer import models, tasks
from tests.typed.public_face import MyHeun as MyHeun


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


class Box(ide.AbstractConstraint):
    """`|u_i| <= radius`, feature by feature."""

    radius: float = 0.5

    def project(self, v):
        return jnp.clip(v, -self.radius, self.radius)

    def tangent(self, u, du):
        return jnp.where(jnp.abs(u) < self.radius, du, jnp.where(u > 0, -1, 1) * jnp.abs(du))


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


class Counting(tasks.AbstractTask):
    """The next of the tokens 0, 1, …, `top`."""

    model: ClassVar = models.LanguageModel
    sizes: ClassVar = {"vocabulary": 5}

    def __init__(self, context: int, *, top: int = 4):
        self.context = context
        self.sizes = {"vocabulary": top + 1}

    def batch(self, step, size, seed):
        starts = np.random.default_rng([seed, step]).integers(0, 5, (size, 1))
        tokens = (starts + np.arange(self.context + 1)) % self.sizes["vocabulary"]
        return tasks.Batch(tokens[:, :-1].astype(np.int32), tokens[:, 1:].astype(np.int32))

    def held_out(self, size, samples=None, part="validation"):
        yield self.batch(0, 8, 0)
