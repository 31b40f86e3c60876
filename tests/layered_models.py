"""Small language models whose layers are left out, merged and refined."""

import functools as ft

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import ide_transformer as ide
from tests.helpers import WIDTH, built_control, make_block


CONTEXT, VOCABULARY, LAYERS = 8, 11, 4
CALIBRATION, HELD_OUT = np.random.default_rng(0).integers(VOCABULARY, size=(2, 4, CONTEXT))


class Earlier(ide.AbstractOperator):
    """`u_t = tanh(ū A)`, ū the mean over the tokens x' ≤ x."""

    matrix: jax.Array

    def __call__(self, u, domain):
        mean = domain.integral_up_to(u) / domain.integral_up_to(jnp.ones_like(u))
        return jnp.tanh(mean @ self.matrix)


def simple_block(key):
    """Operators that are compiled fast: of each token, and of those before it."""
    feed_forward = ide.FeedForward(WIDTH, WIDTH, normalization=ide.Free(), key=key)
    return feed_forward, Earlier(jax.random.normal(key, (WIDTH, WIDTH)))


def post_norm():
    """For each layer and operator a gain and a bias of their own."""
    gains = 1 + 0.1 * np.random.default_rng(4).normal(size=(2, LAYERS, WIDTH))
    bias = jnp.full((LAYERS, WIDTH), 0.1)
    return ide.PiecewiseConstant(tuple(ide.LayerNorm(jnp.asarray(g), bias) for g in gains))


@ft.cache
def model_of(name="free", scales=None):
    """A model of simple blocks, "free", "tied", "post-norm" or on the "sphere", or with
    "attention"; `scales` multiplies the weights of each layer by which its rate vanishes."""
    free = name in ("free", "tied", "attention")
    block = make_block if name == "attention" else simple_block
    theta = built_control(block, LAYERS, ide.Tied if name == "tied" else ide.PiecewiseConstant)
    if scales is not None:

        def scale(x):
            return jnp.asarray(np.asarray(x) * np.reshape(scales, (-1, *[1] * (x.ndim - 1))))

        places = lambda x: (x.blocks[0].outer, x.blocks[1].matrix)  # noqa: E731
        theta = eqx.tree_at(places, theta, jax.tree.map(scale, places(theta)))
    constraint = ide.Free() if free else ide.Sphere(1.0, 0.1)
    options = dict(input_normalization=constraint, std=0.5, key=jax.random.key(3))
    options["solver"] = ide.LieTrotter() if free else ide.projected(ide.LieTrotter())
    constraint = post_norm() if name == "post-norm" else ide.Tied(constraint, LAYERS)
    options |= dict(control=theta, constraint=constraint)
    return ide.LanguageModel(VOCABULARY, CONTEXT, WIDTH, **options)


@eqx.filter_jit
def outputs(model, inputs=HELD_OUT):
    """Compiled once for each structure of a model."""
    return model(inputs)


def mean_over_tokens(outputs, inputs):
    return jnp.mean(outputs, axis=-2)


def layer_by_layer(layers):
    return [(layer, index) for layer in layers for index in (0, 1)]


def states_by_hand(model, sequence, inputs=HELD_OUT):
    """The states before and after each of these (layer, operator) or (layer, operator, h)
    steps."""
    u, domain = _embed(model, inputs)
    states = [u]
    for layer, index, *h in sequence:
        h = jnp.asarray(h[0] if h else 1.0)
        u = _step(model, jnp.asarray(float(layer)), index, h, u, domain)
        states.append(u)
    return states


def by_hand(model, sequence, inputs=HELD_OUT):
    """The outputs after these steps, one written after the other."""
    return _read_out(model, states_by_hand(model, sequence, inputs)[-1])


@eqx.filter_jit
def _embed(model, inputs):
    return model.embed(inputs)


@eqx.filter_jit
def _read_out(model, u):
    return model.outputs(u)


@eqx.filter_jit
def _step(model, t, index, h, u, domain):
    u = u + h * model.control(t)[index](u, domain)
    constraint = model.constraint(t)
    return constraint[index].project(u) if isinstance(constraint, tuple) else u
