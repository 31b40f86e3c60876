"""Right arguments for every class of operators."""

import inspect

import jax
import numpy as np

import ide_transformer as ide
from tests.helpers import built, classes_of


WIDTH = 4
KEY = jax.random.wrap_key_data(np.zeros(2, np.uint32))


def feed_forward(normalization):
    return built(lambda: ide.FeedForward(WIDTH, normalization=normalization, key=KEY))


# Values of arguments by their names, and of single classes.
VALUES = dict(features=WIDTH, heads=2, key_value_heads=1, head_features=2, hidden=8, modes=2)
VALUES |= dict(stride=1, dimension=1, outer_width=3, bias=True, key_bias=True, output_bias=True)
VALUES |= dict.fromkeys(("normalization", "key_normalization"), ide.Free())
VALUES |= dict(std=0.1, output_std=0.1, causal=True, activation=ide.gelu, key=KEY)
VALUES |= dict(rate=0.5, operator=ide.Damping(1.0), velocity=jax.device_put(np.ones(1)))
VALUES |= dict(attention=built(lambda: ide.Attention(WIDTH, 2, key=KEY)))
OWN = {
    "Attention": dict(
        positions=ide.Rotary(), query_normalization=ide.RMSNorm(eps=0.1), window=None
    ),
    "ConvolutionalAttention": dict(width=3, stride=2, statistics=False),
    "Dropout": dict(key=None),
    "LayerNormScaling": dict(operator=feed_forward(ide.LayerNorm())),
    "Relaxation": dict(rate=1.0),
}
CLASSES = classes_of(ide.AbstractOperator)


def build_operator(name):
    build = CLASSES[name]
    values = VALUES | OWN.get(name, {})
    parameters = inspect.signature(build).parameters
    return build(**{x: value for x, value in values.items() if x in parameters})
