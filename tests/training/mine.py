"""Classes of a user, which configurations name `training.mine:Class`."""

import abc
from typing import ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import ide_transformer as ide
from ide_transformer import dynamics, integration, models, solvers, tasks


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
        times: int = 1,
    ):
        self.rate = jnp.full(features, 0.1 * times)
        self.normalization = normalization
        self.strength = strength

    def __call__(self, u, domain):
        rate = self.strength * jnp.broadcast_to(self.rate, u.shape)
        return -rate * self.normalization.project(u)


class Twice(ide.AbstractOperator):
    """`u_t = 2 A(u)`."""

    operator: ide.AbstractOperator

    def __call__(self, u, domain):
        return 2 * self.operator(u, domain)


class Ball(ide.AbstractConstraint):
    """Tokens of a root mean square of at most `radius`."""

    radius: float = eqx.field(static=True, default=1.0)

    def project(self, u):
        size = jnp.sqrt(jnp.mean(u * u, axis=-1, keepdims=True) + 1e-12)
        return u * jnp.minimum(1.0, self.radius / size)

    def tangent(self, u, du):
        return jax.jvp(self.project, (u,), (du,))[1]

    def residual(self, u):
        return jnp.maximum(jnp.sqrt(jnp.mean(u * u, axis=-1)) - self.radius, 0.0)


class Length(dynamics.AbstractCost):
    """`∫ |u_t| dt`, the mean over tokens."""

    def __call__(self, path):
        return jnp.sum(jnp.mean(jnp.linalg.norm(jnp.diff(path.states, axis=0), axis=-1)))


class Unbuilt(ide.AbstractControl):
    """`θ(t) = (t/T) θ`; nothing says how θ is drawn."""

    block: tuple
    num_intervals: int = eqx.field(static=True)
    interval_length: float = eqx.field(static=True, default=1.0)

    continuous: ClassVar[bool] = True
    depth_axes: ClassVar[int] = 0

    def intervals(self):
        return jnp.arange(self.num_intervals, dtype=float)

    def local(self, interval, s):
        factor = (interval + s) / self.num_intervals
        return jax.tree.map(
            lambda x: x * jnp.asarray(factor, x.dtype) if eqx.is_inexact_array(x) else x,
            self.block,
        )

    def __call__(self, t):
        return self.local(0.0, t / self.interval_length)

    def resample(self, num_intervals):
        length = self.interval_length * self.num_intervals / num_intervals
        return type(self)(self.block, num_intervals, length)


class Growing(Unbuilt):
    """The same, drawn from a key."""

    @classmethod
    def build(cls, make_block, num_intervals, *, key):
        return cls(make_block(key), num_intervals)


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


class Plain(integration.AbstractGradient):
    """Keeps everything."""

    def scan(self, interval, carry, xs):
        return jax.lax.scan(interval, carry, xs)

    def adjoint(self):
        return diffrax.DirectAdjoint()


class Doubled(ide.TokenLogits):
    """Logits twice as large."""

    def __call__(self, u, inputs):
        return 2 * super().__call__(u, inputs)


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


class Unsized(tasks.AbstractTask):
    """Halve a sequence of its own length; one batch serves for all parts and samples."""

    model: ClassVar = models.Model

    sizes: ClassVar = {}

    def __init__(self, length: int = 6):
        self.length = length

    @property
    def tokens_per_sample(self):
        return self.length

    def batch(self, step, size, seed):
        x = np.random.default_rng([seed, step]).normal(size=(size, 6))
        return tasks.Batch(x, x / 2)

    def held_out(self, size, samples=None, part="validation"):
        yield self.batch(0, 8, 0)


def sizeless(vocabulary: int, *, key) -> ide.Model:
    """A model of one size."""
    raise NotImplementedError


class AbstractPush(ide.AbstractOperator):
    """An operator that is not finished."""

    @abc.abstractmethod
    def push(self):
        """The push."""


def my_activation(x):
    return jnp.tanh(x)


number = 3


class Fixed(ide.PiecewiseConstant):
    """Layers that cannot be resampled."""

    def resample(self, num_intervals):
        raise ide.InputError("Fixed: its layers are those it has.")


class Ahead(ide.AbstractOperator):
    """`u_t = rate ⊙ (u(x + 1) - u(x))`: the answer is in the next token."""

    rate: Array

    def __call__(self, u, domain):
        rate = jnp.broadcast_to(self.rate, u.shape)
        return rate * (jnp.roll(u, -1, axis=-2) - u)
