"""Classes of a user, which configurations name `training.mine:Class`."""

from typing import ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import ide_transformer as ide
from ide_transformer import models, solvers, tasks


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


class MyHeun(solvers.AbstractScheme):
    """Heun's method; with another weight of the second stage, Ralston's."""

    second: float = eqx.field(static=True, default=1.0)

    def order(self, terms):
        return 2

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        h = terms.contr(t0, t1)
        first = terms.vf_prod(t0, y0, args, h)
        t = t0 + self.second * (t1 - t0)
        second = terms.vf_prod(t, y0 + self.second * first, args, h)
        y1 = y0 + first + (second - first) * (0.5 / self.second)
        return y1, None, dict(y0=y0, y1=y1), None, diffrax.RESULTS.successful


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


class Letters(ide.AbstractInputs):
    """Tokens as rows of a table, without positions."""

    embedding: Array
    context: int = eqx.field(static=True)

    @classmethod
    def build(cls, vocabulary: int, context: int, features: int, *, key):
        return cls(0.1 * jax.random.normal(key, (vocabulary, features)), context)

    @property
    def vocabulary(self):
        return self.embedding.shape[0]

    @property
    def features(self):
        return self.embedding.shape[1]

    @property
    def domain(self):
        return ide.TokenDomain.uniform(self.context)

    def embed(self, inputs, *, key=None):
        tokens = inputs.tokens if isinstance(inputs, ide.Text) else inputs
        u = self.embedding[jnp.asarray(tokens)]
        return ide.Embedded(u, ide.TokenDomain.uniform(u.shape[-2]))

    def of_text(self, text):
        return text.tokens


class Doubled(ide.TokenLogits):
    """Logits twice as large."""

    def __call__(self, u, inputs):
        return 2 * super().__call__(u, inputs)
