"""A small model of every kind, with inputs."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from helpers import built

import ide_transformer as ide
from ide_transformer.equation import Linear


filled = built
WIDTH, HEADS, VOCABULARY, CONTEXT = 8, 2, 11, 10
TOKENS = np.random.default_rng(5).integers(0, VOCABULARY, (2, CONTEXT))
MASK = np.arange(CONTEXT) < np.array([[CONTEXT], [4]])
NORM = ide.LayerNorm(eps=1e-5)
MELS, PLACES = 5, 4


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


SPEECH = normal(2, MELS, 2 * PLACES)


def attention(key, **options):
    return ide.Attention(WIDTH, HEADS, key=key, **(dict(normalization=NORM, std=0.3) | options))


def feed_forward(key):
    return ide.FeedForward(WIDTH, key=key, normalization=NORM, std=0.3)


def cross_attention(key):
    return ide.CrossAttention(WIDTH, HEADS, key=key, normalization=NORM, std=0.3)


def causal(**options):
    return lambda key: attention(key, causal=True, **options)


CAUSAL = (causal(), feed_forward)


def parts(
    operators=(attention,),
    *,
    intervals=2,
    control=ide.PiecewiseConstant,
    constraint=ide.Free(),
    solver=ide.LieTrotter(),
    dropout=0.0,
    seed=1,
    **options,
):
    """The equation of a model and how it is solved."""

    def block(key):
        keys = jax.random.split(key, len(operators))
        made = (make(key) for make, key in zip(operators, keys, strict=True))
        return tuple(ide.Dropout(x, dropout) if dropout else x for x in made)

    return dict(
        control=control.build(block, intervals, key=jax.random.key(seed)),
        constraint=constraint,
        discretization=ide.Discretization(solver, **options),
    )


def linear(features_in, features_out, seed=7):
    key = jax.random.key(seed)
    return Linear(features_in, features_out, bias=True, std=0.3, key=key)


def language_model(
    operators=CAUSAL, *, sizes=(VOCABULARY, CONTEXT, WIDTH), own=None, **options
):
    """One whose own options are `own`, and whose equation has the others."""
    given = dict(key=jax.random.key(2), std=1.0) | (own or {})
    return ide.LanguageModel(*sizes, **parts(operators, **options), **given)


def sequence_classifier(**options):
    return ide.SequenceClassifier(
        VOCABULARY, CONTEXT, 4, WIDTH, key=jax.random.key(2), std=0.5, **parts(), **options
    )


def image_classifier(patch=2, *, class_token=True, area_weights=True, **options):
    return ide.ImageClassifier(
        (4, 6, 1),
        patch,
        5,
        WIDTH,
        class_token=class_token,
        area_weights=area_weights,
        key=jax.random.key(2),
        **parts(**options),
    )


def image_encoder(prefix=1):
    return ide.ImageEncoder(
        (4, 6, 3),
        2,
        embedding=linear(4 * 3, WIDTH),
        prefix=tuple(jnp.asarray(normal(prefix, WIDTH))),
        positions=jnp.asarray(normal(prefix + 6, WIDTH)),
        **parts(),
    )


def stage(shape, features, depth=1, *, kv_stride=2, seed=0, **options):
    def windowed(key):
        return ide.ConvolutionalAttention(
            features, 2, key=key, stride=kv_stride, normalization=NORM, std=0.3
        )

    given = dict(stride=2, key=jax.random.key(seed), std=0.3) | options
    equation = parts((windowed,), intervals=depth)
    return ide.ImageStage(shape, features, **equation, **given)


STAGED = normal(2, 8, 4, 2)


def stages(**last):
    first = stage((8, 4, 2), 4, window=5)
    options = dict(depth=2, kv_stride=1, window=3, seed=2, classes=3, class_token=True)
    return first, stage((4, 2, 4), 6, **(options | last))


def wide_attention(key):
    return attention(key, std=1.0)


def operator_model(
    points=16, *, operators=(wide_attention, feed_forward), width=WIDTH, **options
):
    given = dict(modes=2, std=0.5, key=jax.random.key(3)) | options
    return ide.OperatorModel(points, width, **parts(operators, intervals=1), **given)


def state_model(domain, operators=(attention,), seed=0, *, width=WIDTH, **options):
    equation = parts(operators, intervals=1, seed=seed, **options)
    return ide.StateModel(domain, width, **equation)


def u_shaped_model():
    model = operator_model(8, operators=(attention,))
    return ide.UShapedModel(model, tuple(state_model(model.domain) for _ in range(2)))


def speech_encoder(**options):
    keys = jax.random.split(jax.random.key(4), 2)
    return ide.SpeechEncoder(
        ide.TokenConvolution(MELS, WIDTH, std=0.5, key=keys[0]),
        ide.TokenConvolution(WIDTH, WIDTH, stride=2, std=0.5, key=keys[1]),
        jnp.asarray(normal(PLACES, WIDTH)),
        **parts(**options),
    )


def speech_to_text(**options):
    decoder = language_model((causal(), cross_attention), own=dict(std=0.5), **options)
    return ide.EncoderDecoder(speech_encoder(**options), decoder)


def translation_model():
    return ide.TranslationModel(
        VOCABULARY,
        CONTEXT,
        WIDTH,
        **parts((causal(), cross_attention)),
        make_encoder_control=lambda: parts()["control"],
        key=jax.random.key(2),
        std=0.5,
    )


class Neighbours(ide.AbstractOperator):
    """Couples tokens in a way of its own."""

    weight: jax.Array

    def __call__(self, u, domain):
        return self.weight * jnp.concatenate([0 * u[..., :1, :], u[..., :-1, :]], axis=-2)


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
