"""A small equation, small models, and a right value for every argument of the public face."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from helpers import built, drawn

import ide_transformer as ide


KEY = jax.random.key(0)
WIDTH, TOKENS, VOCABULARY, CONTEXT = 4, 3, 7, 5
DOMAIN = ide.TokenDomain.uniform(TOKENS)
U0 = drawn((TOKENS, WIDTH), seed=0)
TEXT = jnp.array([1, 2, 3])
SOUND = np.ones((2, 2 * TOKENS), np.float32)
IMAGE = np.ones((2, 2, 1), np.float32)
FUNCTION = np.ones((TOKENS, 2), np.float32)


def block(key):
    first, second = jax.random.split(key)
    norm = ide.LayerNorm()
    return (
        ide.Attention(WIDTH, 2, causal=True, normalization=norm, key=first),
        ide.FeedForward(WIDTH, 8, normalization=norm, key=second),
    )


def listening(key):
    attention, feed_forward = block(key)
    return attention, ide.CrossAttention(WIDTH, 2, key=key), feed_forward


def made():
    control = ide.PiecewiseConstant.build(block, 2, key=KEY)
    listener = ide.PiecewiseConstant.build(listening, 2, key=KEY)
    stacked = eqx.filter_vmap(block)(jax.random.split(KEY, 3))
    operators = ide.Attention(WIDTH, 2, key=KEY), ide.FeedForward(WIDTH, 8, key=KEY)
    return control, listener, stacked, *operators


CONTROL, LISTENING, STACKED, ATTENTION, FEED_FORWARD = built(made)
SEEING_ALL = ide.Tied((ATTENTION,), 2)
EQUATION = ide.Equation(CONTROL, ide.Free(), DOMAIN)
DAMPING = ide.Equation(ide.Tied((ide.Damping(1.0),), 1), ide.Free(), DOMAIN)
DAMPED = ide.Equation(ide.Tied((ide.Damping(1.0), FEED_FORWARD), 2), ide.Free(), DOMAIN)


def parts(control=CONTROL, **options):
    discretization = ide.Discretization(ide.LieTrotter())
    return dict(control=control, constraint=ide.Free(), discretization=discretization) | options


def linear(features_in, features_out=WIDTH):
    return built(lambda: ide.Linear(features_in, features_out, bias=True, key=KEY))


def language_model(control=CONTROL):
    return built(
        lambda: ide.LanguageModel(VOCABULARY, CONTEXT, WIDTH, **parts(control), key=KEY)
    )


def image_stage(channels):
    return built(lambda: ide.ImageStage((2, 2, channels), WIDTH, **parts(SEEING_ALL), key=KEY))


CONVOLUTIONS = dict(
    first_convolution=built(lambda: ide.TokenConvolution(2, WIDTH, key=KEY)),
    second_convolution=built(lambda: ide.TokenConvolution(WIDTH, WIDTH, stride=2, key=KEY)),
)
MODEL, DECODER = language_model(), language_model(LISTENING)
OF_FUNCTIONS = ide.OperatorModel(
    TOKENS, WIDTH, **parts(SEEING_ALL), modes=1, grid="midpoint", std=0.1, key=KEY
)
TEXT_ENCODER = ide.TextEncoder(jnp.ones((VOCABULARY, WIDTH)), **parts(), context=CONTEXT)
SPEECH_ENCODER = ide.SpeechEncoder(
    **CONVOLUTIONS, positions=jnp.zeros((TOKENS, WIDTH)), **parts()
)
LISTENER = ide.EncoderDecoder(SPEECH_ENCODER, DECODER)
STAGES = image_stage(1), image_stage(WIDTH)
STATE_MODEL = ide.StateModel(ide.TokenDomain.uniform(4), WIDTH, **parts(SEEING_ALL))


FREE = ide.Free()
# The right value of an argument, by its name, where that is not its default; `OWN` in
# recipes.py has the exceptions.
VALUES = dict(
    **parts(),
    **dict.fromkeys(("normalization", "output_normalization", "key_normalization"), FREE),
    **dict.fromkeys(("value_normalization", "embedding_normalization"), FREE),
    **dict.fromkeys(("bias", "key_bias", "output_bias", "readout_bias", "causal"), True),
    **dict.fromkeys(("statistics", "depthwise", "class_token", "area_weights"), True),
    **dict.fromkeys(("std", "output_std", "memory_std", "dropout"), 0.1),
    **dict.fromkeys(("rate", "momentum", "lookahead", "length_penalty"), 0.5),
    **dict.fromkeys(("outer_width", "num_intervals", "classes"), 3),
    **dict.fromkeys(("heads", "head_features", "streams", "operators", "terms"), 2),
    **dict.fromkeys(("steps_per_interval", "features_out", "iterations", "intervals"), 2),
    **dict.fromkeys(("top_k", "beams", "channels", "num_steps"), 2),
    **dict.fromkeys(("key_value_heads", "stride", "dimension", "patch"), 1),
    **dict.fromkeys(("waves", "frequencies", "modes", "length", "window"), 1),
    **dict.fromkeys(("features", "source_features", "features_in"), WIDTH),
    **dict.fromkeys(("shape", "tokens", "factor"), TOKENS),
    **dict.fromkeys(("source", "x", "u0", "u", "states"), U0),
    **dict.fromkeys(("prompt", "text"), TEXT),
    activation=ide.gelu,
    attention=ATTENTION,
    base=100.0,
    basis=ide.Cosine(),
    block=(ATTENTION, FEED_FORWARD),
    blocks=CONTROL.blocks,
    bounds=((0.0, 1.0),),
    classifier=linear(WIDTH, 3),
    classifiers=(linear(WIDTH, 3),),
    coefficients=STACKED,
    context=CONTEXT,
    coupling=0.9,
    domain=DOMAIN,
    encoder=SPEECH_ENCODER,
    end=0,
    eps=1e-5,
    equation=EQUATION,
    expected=jnp.arange(6.0).reshape(2, 3) + 1,
    fixed_size=True,
    given=jnp.arange(6.0).reshape(2, 3),
    gradient=ide.Direct(),
    hidden=8,
    horizon=2.0,
    image_shape=(2, 2, 1),
    increment=jnp.sin,
    inner=jnp.ones((3, 2)),
    key=KEY,
    knots=STACKED,
    levels=(STATE_MODEL, STATE_MODEL),
    lift=linear(WIDTH),
    logarithmic=1.0,
    make_block=block,
    masks=False,
    max_distance=16,
    max_steps=16,
    model=MODEL,
    operator=ide.Damping(1.0),
    outer=jnp.ones((3, 2)),
    policy=None,
    pooler=linear(WIDTH, 2),
    positions=jnp.zeros((CONTEXT, WIDTH)),
    prefix=(jnp.zeros(WIDTH),),
    radius=2.0,
    rule="gauss_legendre",
    segments=jnp.ones((2, WIDTH)),
    solver=ide.RK4(),
    space=ide.FunctionSpace(ide.Cosine(), WIDTH, ide.FeatureDomain(WIDTH)),
    stretch=(1.0,),
    sub_solver=diffrax.Euler(),
    t0=0.0,
    t1=1.0,
    table=jnp.ones((8, 2)),
    tolerance=1e-3,
    top_p=0.5,
    velocity=jnp.ones(1),
    vocabulary=VOCABULARY,
    wavelength=2.0,
    weights=jnp.ones(TOKENS),
    **CONVOLUTIONS,
)
