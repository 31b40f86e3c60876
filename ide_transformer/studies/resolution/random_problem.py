"""Random equations that are smooth in tokens and features, to try error budgets on."""

import dataclasses

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ...dynamics import FunctionSolve
from ...equation import (
    AbstractOperator,
    Attention,
    FeatureDomain,
    FeedForward,
    Free,
    FunctionSpace,
    LayerNorm,
    Legendre,
    Tied,
)
from ...integration import Discretization
from ...models import OperatorModel
from ...solvers import LieTrotter


_MODES, _HEADS, _LAYERS, _SAMPLES, _WAVES = 8, 2, 2, 4, 3
# The coefficient of a function over that of the one before it.
_DECAY = 0.6


def random_problem(seed: int, solver: diffrax.AbstractSolver = LieTrotter()) -> FunctionSolve:
    """A random equation of attention and feed-forward, the same at all depths, between random
    linear maps, and random functions on [0, 1]; at a random number of tokens, features and
    steps, so that now one of them, now another has the largest error. Equal weights at the
    middles of equal parts make the rules of tokens and features of second order.
    """
    random = np.random.default_rng(seed)
    choices = (5, 8, 16), (24, 48, 96), (1, 2, 4)
    tokens, features, steps = (int(random.choice(numbers)) for numbers in choices)
    sizes = random.uniform(0.1, 0.4, size=2)
    keys = jax.random.split(jax.random.key(seed), 2)

    def block(key: Array) -> tuple[AbstractOperator, ...]:
        first, second = jax.random.split(key)
        norm = LayerNorm()
        attention = Attention(_MODES, _HEADS, normalization=norm, std=1.0, key=first)
        inside = FeedForward(_MODES, 2 * _MODES, normalization=norm, std=1.0, key=second)
        attention, inside = jax.tree.map(_smooth, (attention, inside))
        return (
            eqx.tree_at(lambda x: x.output, attention, replace_fn=lambda x: x.times(sizes[0])),
            eqx.tree_at(lambda x: x.outer, inside, replace_fn=lambda x: x.times(sizes[1])),
        )

    model = OperatorModel(
        tokens,
        _MODES,
        control=Tied.build(block, _LAYERS, key=keys[0]),
        constraint=Free(),
        discretization=Discretization(solver, steps_per_interval=steps),
        modes=2,
        grid="midpoint",
        std=1.0,
        key=keys[1],
    )
    maps = jax.tree.map(
        _smooth, (model.inputs.embedding.weight.T, model.read_out.linear.weight)
    )
    model = eqx.tree_at(
        lambda m: (m.inputs.embedding.weight, m.read_out.linear.weight),
        model,
        (maps[0].T, maps[1]),
    )
    space = FunctionSpace(Legendre(), _MODES, FeatureDomain(features))
    waves = random.normal(size=(2, _SAMPLES, _WAVES))

    def inputs(points: Array) -> Array:
        angles = np.pi * np.outer(np.arange(1, _WAVES + 1), points[:, 0])
        return jnp.asarray(waves[0] @ np.cos(angles) + waves[1] @ np.sin(angles))

    return FunctionSolve(dataclasses.replace(model, space=space), inputs, tokens)


def _smooth(c: Array) -> Array:
    """Coefficients that fall with the numbers of their functions."""
    for axis, number in enumerate(c.shape):
        fall = jnp.asarray(_DECAY ** np.arange(number), c.dtype)
        c = c * jnp.expand_dims(fall, [i for i in range(c.ndim) if i != axis])
    return c
