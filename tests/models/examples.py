"""A small model of every kind, with inputs."""

import functools as ft

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import ide_transformer as ide
from tests.helpers import built


def small(make):
    """The function of a model, with random weights that NumPy draws."""
    return ft.wraps(make)(lambda *args, **options: built(lambda: make(*args, **options)))


WIDTH, HEADS, VOCABULARY, CONTEXT = 8, 2, 11, 10
TOKENS = np.random.default_rng(5).integers(0, VOCABULARY, (2, CONTEXT))
MASK = np.arange(CONTEXT) < np.array([[CONTEXT], [4]])
NORM, KEY = ide.LayerNorm(eps=1e-5), jax.random.key(0)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def attention(key, **options):
    return ide.Attention(WIDTH, HEADS, key=key, **(dict(normalization=NORM) | options))


def feed_forward(key):
    return ide.FeedForward(WIDTH, key=key, normalization=NORM)


def cross_attention(key):
    return ide.CrossAttention(WIDTH, HEADS, key=key, normalization=NORM)


def causal(**options):
    return lambda key: attention(key, causal=True, **options)


CAUSAL = (causal(), feed_forward)


def parts(
    operators=(attention,),
    *,
    intervals=2,
    control=ide.PiecewiseConstant,
    dropout=0.0,
    **options,
):
    """The equation of a model and how it is solved."""

    def block(key):
        block = (make(key) for make in operators)
        return tuple(ide.Dropout(x, dropout) if dropout else x for x in block)

    theta = control.build(block, intervals, key=KEY)
    others = dict(constraint=ide.Free(), solver=ide.LieTrotter())
    others |= {name: options.pop(name) for name in others.keys() & options.keys()}
    return dict(control=theta, **others, mesh=ide.Mesh(**options))


class StateInputs(ide.AbstractInputs):
    """Inputs are states, which are solved over the time 0.5 by default."""

    def embed(self, inputs, *, key=None):
        if isinstance(inputs, ide.Timed):
            rate = jnp.asarray(inputs.duration) / 0.5
            return self.embed(inputs.inputs)._replace(rate=rate)
        return ide.models.Embedded(jnp.asarray(inputs), self.domain)


@small
def linear(features_in, features_out):
    return ide.Linear(features_in, features_out, bias=True, key=KEY)


@small
def language_model(operators=CAUSAL, *, text_options=None, velocity=False, **options):
    """One whose own options are `text_options`, and whose equation has the others."""
    all_options = parts(operators, **options) | dict(key=KEY) | (text_options or {})
    build = ide.contrib.MomentumLanguageModel if velocity else ide.LanguageModel
    return build(VOCABULARY, CONTEXT, WIDTH, **all_options)


@small
def sequence_classifier(**options):
    return ide.SequenceClassifier(VOCABULARY, CONTEXT, 4, WIDTH, key=KEY, **parts(), **options)


@small
def image_classifier(*, class_token=True, area_weights=True, **options):
    input_options = dict(class_token=class_token, area_weights=area_weights, key=KEY)
    return ide.ImageClassifier((4, 6, 1), 2, 5, WIDTH, **input_options, **parts(**options))


@small
def image_encoder(prefix=1):
    tokens = (jnp.zeros(WIDTH),) * prefix
    options = dict(prefix=tokens, positions=jnp.zeros((prefix + 6, WIDTH)), fixed_size=True)
    inputs = ide.models.ImageInputs((4, 6, 3), linear(4 * 3, WIDTH), 2, 2, **options)
    return ide.Model(inputs, **parts(), read_out=ide.models.States())


@small
def stage(shape, features, depth=1, *, kv_stride=2, **options):
    def windowed(key):
        attention_options = dict(stride=kv_stride, normalization=NORM)
        return ide.ConvolutionalAttention(features, 2, key=key, **attention_options)

    all_options = parts((windowed,), intervals=depth) | dict(stride=2, key=KEY) | options
    return ide.ImageStage(shape, features, **all_options)


STAGED = normal(2, 8, 4, 2)


@small
def stages(**last):
    first = stage((8, 4, 2), 4, window=5)
    options = dict(depth=2, kv_stride=1, window=3, classes=3, class_token=True)
    return first, stage((4, 2, 4), 6, **(options | last))


@small
def operator_model(points=16, *, operators=(attention, feed_forward), **options):
    all_options = dict(modes=2, key=KEY) | options
    return ide.OperatorModel(points, WIDTH, **parts(operators, intervals=1), **all_options)


@eqx.filter_jit
def outputs_of(model, inputs, key=None):
    return model(inputs, key=key)


@eqx.filter_jit
def solution_of(model, inputs):
    return model.solve(inputs)


@eqx.filter_jit
def embedded_by(model, inputs, key=None):
    return model.embed(inputs, key=key)


@eqx.filter_jit
def solved_by_hand(equation, u0, solver=ide.LieTrotter(), **options):
    return ide.solve(equation, u0, solver=solver, **options).u1
