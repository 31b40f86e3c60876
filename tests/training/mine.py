"""Classes of a user, which configurations name `tests.training.mine:Class`."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

import ide_transformer as ide
from ide_transformer import models, tasks
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


class Pushed(ide.AbstractScheme):
    """`u_{n+1} = u_n + h F(t_n, u_n) + h s v`, v the initial velocity or, with a key, noise.
    It makes an even number of steps."""

    strength: Array = eqx.field(converter=jnp.asarray, default=0.5)
    key: PRNGKeyArray | None = None

    random: ClassVar[bool] = True
    starts_from: ClassVar[tuple[type, ...]] = (ide.contrib.InitialVelocity,)

    def order(self, terms):
        return 1

    def check(self, plan):
        if plan.steps is None or plan.steps % 2:
            raise ide.InputError(f"Pushed: an odd number of steps, {plan}; make an even one.")

    def learned(self):
        return {"push": 2 * self.strength}

    def start(self, field, u):
        if self.key is not None:
            return jax.random.normal(self.key, u.shape, u.dtype)
        return field.args.velocity if field.args else jnp.zeros_like(u)

    def make_step(self, field, u, state, made_jump):
        y1 = u + field(0, u) + field.h * self.strength * state
        return ide.solvers.Step.between(u, y1, state=state)
