"""For each public class and function: arguments that are right, and a use of the result."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import diffrax
import jax.numpy as jnp
from misuse.uses import IMAGES, use_of
from misuse.values import (
    DECODER,
    DOMAIN,
    EQUATION,
    KEY,
    LISTENER,
    LISTENING,
    MODEL,
    OF_FUNCTIONS,
    SEEING_ALL,
    SOUND,
    STAGES,
    STATE_MODEL,
    TEXT,
    TEXT_ENCODER,
    TOKENS,
    U0,
    VALUES,
    VOCABULARY,
    WIDTH,
    linear,
)

import ide_transformer as ide


class Recipe(NamedTuple):
    """A call whose arguments are right, and a use of what it returns, which gives numbers."""

    call: Callable
    arguments: dict[str, Any]
    use: Callable[[Any], Any]


# Tuples that are checked where they are used: by a task, by a solve, by an exit, and by a
# scheme that makes a step. Files of a run are written by `train`, and `tests/training` gives it
# wrong configurations.
UNCHECKED = {"Batch", "Embedded", "Progress", "Step"}
ELSEWHERE = {"train", "Solution", "InputError", "Encoded.on"}


def public_calls():
    """The public names that can be called, and the ways to build a class."""
    for name, value in ((name, getattr(ide, name)) for name in dir(ide)):
        if name.startswith("_") or inspect.ismodule(value) or name in UNCHECKED | ELSEWHERE:
            continue
        if inspect.isclass(value) and (inspect.isabstract(value) or "Abstract" in name):
            continue
        yield name
        ways = (way for way, x in vars(value).items() if isinstance(x, classmethod))
        ways = {f"{name}.{way}" for way in ways if not way.startswith("_")}
        yield from sorted(ways - ELSEWHERE)


_PLACES = dict(positions=jnp.zeros((TOKENS, WIDTH)))
_EMBEDDING = dict(embedding=jnp.ones((VOCABULARY, WIDTH)))
_LINE = dict(points=jnp.linspace(0, 1, TOKENS))
_NORM = dict(gain=jnp.ones(WIDTH), bias=0.5)
_HEARD = dict(model=LISTENER, source=SOUND)
_SEEING_ALL = dict(control=SEEING_ALL)
_LIE_TROTTER = dict(solver=ide.LieTrotter())
_EULER = dict(solver=diffrax.Euler(), block=ide.LieTrotter())
_TRANSFER = dict(source=DOMAIN, target=DOMAIN)
_STEP = dict(terms=EQUATION.terms_of(0))

# Right values of arguments where another class has another one of this name.
OWN: dict[str, dict[str, Any]] = {
    "Attention": dict(window=2, positions=ide.Rotary()),
    "ConvolutionalAttention": dict(width=1),
    "DeltaRule": dict(key=jnp.ones((2, 2)), value=jnp.ones(2), rate=1.0),
    "FourierIntegral": dict(modes=2),
    "LayerNormScaling": dict(
        operator=ide.FeedForward(WIDTH, normalization=ide.LayerNorm(), key=KEY)
    ),
    "Relaxation": dict(rate=1.0),
    "Rotary": dict(features=2),
    "Volterra": dict(window=2),
    **dict.fromkeys(("LayerNorm", "RMSNorm", "Sphere", "RMSSphere"), _NORM | dict(domain=None)),
    "Tied": dict(num_intervals=2),
    "Hypernetwork": dict(num_intervals=2),
    "Hypernetwork.build": dict(hidden=2),
    "FunctionSpace": dict(modes=WIDTH, domain=ide.FeatureDomain(WIDTH)),
    "Warped": dict(waves=2),
    "TokenDomain": dict(points=DOMAIN.points, grid=(TOKENS,), prefix=0),
    "TokenDomain.periodic": dict(length=1.0),
    **dict.fromkeys(("TokenDomain.trapezoid", "TokenDomain.simpson"), _LINE),
    "TokenDomain.from_points": dict(points=jnp.linspace(0, 1, TOKENS)[:, None]),
    "Field.at": dict(values=jnp.ones((2, TOKENS)), points=jnp.linspace(0, 1, TOKENS)),
    **dict.fromkeys(("interpolation", "restriction"), _TRANSFER),
    **dict.fromkeys(("solve", "Discretization", "LearnedMultistep"), _LIE_TROTTER),
    "rebuilding_error": dict(solver=ide.AlgebraicallyReversible(), steps_per_interval=1),
    "Recursive": dict(levels=1),
    "EstimatedExit": dict(tolerance=0.1),
    "AlgebraicallyReversible": dict(solver=diffrax.Heun()),
    "Composition": dict(sub_solver=ide.RK4(), coefficients=(0.5, 0.5)),
    "InitialVelocity": dict(velocity=U0),
    "MatrixFree": dict(solver=diffrax.Kvaerno3()),
    "PresymplecticEuler": dict(linear=0.1),
    "SteadyState": dict(solver=diffrax.Euler()),
    **dict.fromkeys(("Residual", "Velocity"), _EULER),
    "Shear": dict(target=0),
    **dict.fromkeys(("StepField", "single_step"), _STEP),
    "Mesh": dict(width=WIDTH),
    "Model": dict(
        inputs=MODEL.inputs,
        read_out=ide.TokenLogits(),
        space=ide.FunctionSpace(ide.Cosine(), WIDTH, ide.FeatureDomain(2 * WIDTH)),
    ),
    "OperatorModel": _SEEING_ALL | dict(points=TOKENS),
    **dict.fromkeys(("ImageClassifier", "SequenceClassifier"), _SEEING_ALL),
    "ImageEncoder": IMAGES,
    "ImageStage": _SEEING_ALL | dict(window=3, padding=1),
    "StagedModel": dict(stages=STAGES),
    "StateModel": dict(width=WIDTH),
    "UShapedModel": dict(model=STATE_MODEL),
    "TextEncoder": _EMBEDDING | dict(lift=None, pooler=None),
    "SpeechEncoder": _PLACES,
    "EncoderDecoder": dict(decoder=DECODER),
    "TranslationModel": dict(control=LISTENING, make_encoder_control=lambda: SEEING_ALL),
    "CachedDecoder": dict(tokens=4),
    **dict.fromkeys(("generate_greedy", "generate_beam"), _HEARD),
    "generate": dict(length=2),
    "compiled": dict(sizes=(2,)),
    "sentence_embedding": dict(model=TEXT_ENCODER),
    "ChannelsFirst": dict(model=OF_FUNCTIONS),
    "Field": dict(values=jnp.ones(TOKENS), domain=ide.TokenDomain.midpoint(TOKENS)),
    "error_budget": dict(model=OF_FUNCTIONS, inputs=lambda points: points[:, 0]),
    "Text": dict(
        tokens=TEXT, mask=jnp.array([True, True, False]), segments=jnp.zeros(TOKENS, int)
    ),
    "SourceAndText": dict(source=SOUND),
    "load_pretrained": dict(path="no/such/folder"),
    "save_pretrained": dict(path="no/such/file.npz", like="no/such/folder"),
    "load_model": dict(path="no/such/run", weights="trained"),
    "load_run": dict(path=Path("no/such/run"), weights="trained"),
    "TextInputs": _EMBEDDING | dict(velocity=None),
    "ImageInputs": dict(embedding=linear(1), padding=0, positions=jnp.zeros((5, WIDTH))),
    "FunctionInputs": dict(points=TOKENS, embedding=linear(4), grid="midpoint"),
    "AudioInputs": _PLACES,
    "GridInputs": dict(width=WIDTH),
    "StageInputs": dict(before=STAGES[0], windows=STAGES[1].inputs),
    "VCycleInputs": dict(inputs=STATE_MODEL.inputs),
    "EncodedInputs": dict(text=LISTENER.inputs.text),
    "TokenLogits": dict(weight=jnp.ones((VOCABULARY, WIDTH)), bias=jnp.ones(VOCABULARY)),
    "FunctionValues": dict(linear=linear(WIDTH, 2), channels=True),
    "PrefixAndMeanHead": dict(classifier=linear(2 * WIDTH, 3)),
    "Solution.evaluate": {},
}
# Parameters that have no right value here: of a domain those that its other ways fill, files.
LEFT = {"spacing", "period", "ends", "end_weights", "tokenizer", "checkpoint", "trust"}


def recipe(name, call):
    known, given = VALUES | OWN.get(name, {}), {}
    for argument, parameter in inspect.signature(call).parameters.items():
        if argument in known or argument not in LEFT:
            given[argument] = known.get(argument, parameter.default)
    unknown = [x for x, value in given.items() if value is inspect.Parameter.empty]
    assert not unknown, f"{name} has no right value for {unknown}; see values.py"
    return Recipe(call, given, use_of(name))


def call_of(name):
    call = ide
    for part in name.split("."):
        call = getattr(call, part)
    return call


DENSE = ide.solve(EQUATION, U0, solver=ide.RK4(), saveat=diffrax.SaveAt(dense=True))
RECIPES = {name: recipe(name, call_of(name)) for name in public_calls()}
RECIPES["Solution.evaluate"] = Recipe(DENSE.evaluate, {"t": 0.5}, lambda state: state)
OPERATORS = {
    name: recipe
    for name, recipe in RECIPES.items()
    if inspect.isclass(recipe.call) and issubclass(recipe.call, ide.AbstractOperator)
}
