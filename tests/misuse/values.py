"""A small equation, small models, and a right value for every argument of the public face."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import ide_transformer as ide
from tests.helpers import built, drawn


KEY = jax.random.wrap_key_data(np.zeros(2, np.uint32))
WIDTH, TOKENS, VOCABULARY, CONTEXT = 4, 3, 7, 5
DOMAIN = ide.TokenDomain.uniform(TOKENS)
U0 = drawn((TOKENS, WIDTH), seed=0)
TEXT = jax.device_put(np.array([1, 2, 3], np.int32))
SOUND = np.ones((2, 2 * TOKENS), np.float32)
IMAGE = np.ones((2, 2, 1), np.float32)
FUNCTION = np.ones((TOKENS, 2), np.float32)


def ones(*shape):
    """NumPy makes arrays, which compiles nothing."""
    return jax.device_put(np.ones(shape))


def zeros(*shape):
    return jax.device_put(np.zeros(shape))


LINE = jax.device_put(np.linspace(0, 1, TOKENS))


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
    mesh = ide.Mesh(solver=ide.LieTrotter())
    return dict(control=control, constraint=ide.Free(), mesh=mesh) | options


def linear(features_in, features_out=WIDTH):
    return built(lambda: ide.Linear(features_in, features_out, bias=True, key=KEY))


def language_model(control=CONTROL):
    sizes = VOCABULARY, CONTEXT, WIDTH
    return built(lambda: ide.LanguageModel(*sizes, **parts(control), key=KEY))


def image_stage(channels):
    return built(lambda: ide.ImageStage((2, 2, channels), WIDTH, **parts(SEEING_ALL), key=KEY))


CONVOLUTIONS = dict(
    first_convolution=built(lambda: ide.contrib.TokenConvolution(2, WIDTH, key=KEY)),
    second_convolution=built(
        lambda: ide.contrib.TokenConvolution(WIDTH, WIDTH, stride=2, key=KEY)
    ),
)
MODEL, DECODER = language_model(), language_model(LISTENING)
OF_FUNCTIONS = built(
    lambda: ide.OperatorModel(
        TOKENS, WIDTH, **parts(SEEING_ALL), modes=1, grid="midpoint", key=KEY
    )
)
TEXTS = ide.models.TextInputs(ones(VOCABULARY, WIDTH), CONTEXT)
TEXT_ENCODER = ide.Model(TEXTS, **parts(), read_out=ide.models.States())
SPEECH = ide.contrib.AudioInputs(**CONVOLUTIONS, positions=zeros(TOKENS, WIDTH))
SPEECH_ENCODER = ide.Model(SPEECH, **parts(), read_out=ide.models.States(ide.LayerNorm()))
LISTENER = ide.contrib.EncoderDecoder(SPEECH_ENCODER, DECODER)
STAGES = image_stage(1), image_stage(WIDTH)


FREE = ide.Free()
SPACE, WIDE = (
    ide.FunctionSpace(ide.Cosine(), WIDTH, ide.FeatureDomain(n)) for n in (WIDTH, 2 * WIDTH)
)
# The right value of an argument, by its name, where that is not its default; `OWN` has the
# exceptions.
VALUES: dict[str, Any] = dict(
    **parts(),
    **dict.fromkeys(("normalization", "output_normalization", "key_normalization"), FREE),
    **dict.fromkeys(("embedding_normalization",), FREE),
    **dict.fromkeys(("bias", "key_bias", "output_bias", "readout_bias", "causal"), True),
    **dict.fromkeys(("class_token", "area_weights"), True),
    **dict.fromkeys(("std", "output_std", "dropout"), 0.1),
    **dict.fromkeys(("rate", "momentum", "lookahead"), 0.5),
    **dict.fromkeys(("outer_width", "layers", "classes"), 3),
    **dict.fromkeys(("heads", "head_features", "streams", "operators", "terms"), 2),
    **dict.fromkeys(("steps_per_interval", "features_out", "intervals"), 2),
    **dict.fromkeys(("top_k", "channels", "num_steps"), 2),
    **dict.fromkeys(("key_value_heads", "stride", "dimension", "patch"), 1),
    **dict.fromkeys(("waves", "frequencies", "modes", "length", "window"), 1),
    **dict.fromkeys(("features", "features_in"), WIDTH),
    **dict.fromkeys(("shape", "tokens", "factor"), TOKENS),
    **dict.fromkeys(("source", "x", "u0", "u", "states"), U0),
    **dict.fromkeys(("prompt", "text"), TEXT),
    **CONVOLUTIONS,
)
VALUES |= dict(base=100.0, coupling=0.9, end=0, eps=1e-5, fixed_size=True, hidden=8)
VALUES |= dict(horizon=2.0, logarithmic=1.0, masks=False, max_distance=16, max_steps=16)
VALUES |= dict(policy=None, rule="gauss_legendre", stretch=(1.0,), t0=0.0, t1=1.0)
VALUES |= dict(tolerance=1e-3, top_p=0.5, vocabulary=VOCABULARY, wavelength=2.0)
VALUES |= dict(bounds=((0.0, 1.0),), context=CONTEXT, image_shape=(2, 2, 1), key=KEY)
VALUES |= dict(activation=ide.gelu, attention=ATTENTION, block=(ATTENTION, FEED_FORWARD))
VALUES |= dict(blocks=CONTROL.blocks, coefficients=STACKED, knots=STACKED, make_block=block)
VALUES |= dict(basis=ide.Cosine(), increment=jnp.sin, operator=ide.Damping(1.0))
VALUES |= dict(domain=DOMAIN, equation=EQUATION, gradient=ide.Direct(), model=MODEL)
VALUES |= dict(encoder=SPEECH_ENCODER)
VALUES |= dict(solver=ide.RK4(), sub_solver=diffrax.Euler(), space=SPACE, lift=linear(WIDTH))
VALUES |= dict(classifiers=(linear(WIDTH, 3),))
VALUES |= dict(pooler=linear(WIDTH, 2), prefix=(zeros(WIDTH),))
VALUES |= dict(given=ones(2, 3), expected=jax.device_put(np.arange(1.0, 7.0).reshape(2, 3)))
VALUES |= dict(inner=ones(3, 2), outer=ones(3, 2), table=ones(8, 2))
VALUES |= dict(positions=zeros(CONTEXT, WIDTH), segments=ones(2, WIDTH))
VALUES |= dict(weights=ones(TOKENS))

_PLACES = dict(positions=zeros(TOKENS, WIDTH))
_EMBEDDING = dict(embedding=ones(VOCABULARY, WIDTH))
_IMAGES = dict(embedding=linear(1), positions=zeros(5, WIDTH))
_LINE = dict(points=LINE)
_NORM = dict(gain=ones(WIDTH), bias=0.5)
_SEEING_ALL = dict(control=SEEING_ALL)
_LIE_TROTTER = dict(solver=ide.LieTrotter())
_EULER = dict(solver=diffrax.Euler(), block=ide.LieTrotter())
_TRANSFER = dict(source=DOMAIN, target=DOMAIN)
_STEP = dict(terms=built(lambda: EQUATION.terms_of(0)))
_RUN = dict(path="no/such/run", weights="trained")
_TWO, _WIDTH = dict(layers=2), dict(width=WIDTH)

# Right values of arguments where another class has another one of this name.
OWN: dict[str, dict[str, Any]] = {
    "Attention": dict(causal=True, window=2, positions=ide.Rotary()),
    "ConvolutionalAttention": dict(width=1, statistics=True),
    "FourierIntegral": dict(modes=2),
    "Nonnegative": dict(domain=None),
    "LayerNormScaling": dict(
        operator=built(lambda: ide.FeedForward(WIDTH, normalization=ide.LayerNorm(), key=KEY))
    ),
    "Relaxation": dict(rate=1.0),
    "Rated": dict(rate=ones()),
    "Rotary": dict(features=2),
    "Volterra": dict(window=2),
    **dict.fromkeys(("LayerNorm", "RMSNorm", "Sphere", "RMSSphere"), _NORM | dict(domain=None)),
    **dict.fromkeys(("Tied", "Hypernetwork"), _TWO),
    "Hypernetwork.build": dict(hidden=2),
    "FunctionSpace": dict(modes=WIDTH, domain=ide.FeatureDomain(WIDTH)),
    "TokenDomain": dict(points=DOMAIN.points, grid=(TOKENS,), prefix=0),
    "TokenDomain.periodic": dict(length=1.0),
    **dict.fromkeys(("TokenDomain.trapezoid", "TokenDomain.simpson"), _LINE),
    "TokenDomain.from_points": dict(points=jax.device_put(np.linspace(0, 1, TOKENS)[:, None])),
    "Field.at": dict(values=ones(2, TOKENS), points=LINE),
    "interpolation": _TRANSFER,
    **dict.fromkeys(("solve", "LearnedMultistep"), _LIE_TROTTER),
    "Recursive": dict(levels=1),
    "EstimatedExit": dict(tolerance=0.1),
    "AlgebraicallyReversible": dict(solver=diffrax.Heun()),
    "InitialVelocity": dict(velocity=U0),
    "MatrixFree": dict(solver=diffrax.Kvaerno3()),
    "PresymplecticEuler": dict(linear=0.1),
    "SteadyState": dict(solver=diffrax.Euler()),
    **dict.fromkeys(("Residual", "Velocity"), _EULER),
    "Shear": dict(target=0),
    **dict.fromkeys(("StepField", "single_step"), _STEP),
    **dict.fromkeys(("Mesh",), _WIDTH),
    "Model": dict(inputs=MODEL.inputs, read_out=ide.models.TokenLogits(), space=WIDE),
    **dict.fromkeys(
        ("OperatorModel", "FunctionClassifier", "FunctionRegressor"),
        _SEEING_ALL | dict(points=TOKENS),
    ),
    **dict.fromkeys(
        ("ImageClassifier", "SequenceClassifier", "SequenceRegressor"), _SEEING_ALL
    ),
    "ImageStage": _SEEING_ALL | dict(window=3, padding=1),
    "StagedModel": dict(stages=STAGES),
    "EncoderDecoder": dict(decoder=DECODER),
    "CachedDecoder": dict(tokens=4),
    "generate_greedy": dict(model=LISTENER, source=SOUND),
    "generate": dict(length=2, given=None),
    "compiled": dict(sizes=(2,)),
    "ChannelsFirst": dict(model=OF_FUNCTIONS),
    "Field": dict(values=ones(TOKENS), domain=ide.TokenDomain.midpoint(TOKENS)),
    "outputs_at": dict(
        model=OF_FUNCTIONS,
        field=ide.Field(ones(TOKENS), ide.TokenDomain.midpoint(TOKENS)),
        points=LINE[:, None] / 2,
        values=None,
    ),
    "statistics": dict(values=FUNCTION, channels=False),
    "error_budget": dict(model=OF_FUNCTIONS, inputs=lambda points: points[:, 0]),
    "Text": dict(tokens=TEXT, mask=np.array([True, True, False]), segments=np.zeros(3, int)),
    "SourceAndText": dict(source=SOUND),
    "load_pretrained": dict(path="no/such/folder"),
    "save_pretrained": dict(path="no/such/file.npz", like="no/such/folder"),
    **dict.fromkeys(("load_model", "load_run"), _RUN),
    "TextInputs": _EMBEDDING,
    "VelocityInputs": _EMBEDDING | dict(velocity=ones(VOCABULARY, WIDTH)),
    "ImageInputs": _IMAGES | dict(padding=0),
    "FunctionInputs": dict(points=TOKENS, embedding=linear(4), grid="midpoint"),
    "FunctionInputs.build": dict(points=TOKENS),
    "AudioInputs": _PLACES,
    "StageInputs": dict(before=STAGES[0], windows=STAGES[1].inputs),
    "EncodedInputs": dict(text=LISTENER.inputs.text),
    "TokenLogits": dict(weight=ones(VOCABULARY, WIDTH), bias=ones(VOCABULARY)),
    "FunctionValues": dict(linear=linear(WIDTH, 2), channels=True),
    "MeanHead": dict(linear=linear(WIDTH, 3)),
    "MeanValues": dict(linear=linear(WIDTH, 2), channels=True),
    "MeanValues.build": dict(numbers=2),
    "PrefixAndMeanHead": dict(linear=linear(2 * WIDTH, 3)),
    "Solution.evaluate": {},
}
# Parameters that have no right value here: of a domain those that its other ways fill, files,
# options of another class.
LEFT = {"spacing", "period", "ends", "end_weights", "tokenizer", "checkpoint", "trust"}
LEFT |= {"options"}
