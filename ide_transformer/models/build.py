"""Functions that build models with random weights."""

import functools as ft
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import diffrax
import jax
from jaxtyping import PRNGKeyArray

from ..arguments import NonNegativeFloat, PositiveInt, checked
from ..equation import AbstractConstraint, AbstractControl, Free, LayerNorm
from ..errors import InputError
from ..integration import Mesh
from ..solvers import LieTrotter
from .chains import StageInputs
from .functions import FunctionInputs, FunctionValues
from .images import AbstractImageInputs, ImageInputs
from .model import Model
from .parts import AbstractReadOut
from .read_outs import AbstractClassifier, MeanHead, MeanValues, PrefixHead, States, TokenLogits
from .text_inputs import TextInputs


Build = TypeVar("Build", bound=Callable[..., Model])

# The names in a model of arguments of inputs and of read-outs.
_OF_INPUTS = {
    "masks": "class_token",
    "normalization": "input_normalization",
    "scale": "embedding_scale",
}
_OF_READ_OUTS = {
    "bias": "readout_bias",
    "normalization": "output_normalization",
    "statistics": "output_statistics",
}
# The description of each argument of a model.
_ABOUT = {
    "vocabulary": "the number of tokens that the model knows.",
    "context": "the longest text, in tokens.",
    "image_shape": "(rows, columns, channels) of a full-sized image.",
    "patch": "the side of a patch in pixels; it must divide rows and columns.",
    "points": "the number of points in training, or one number for each axis.",
    "classes": "the number of classes.",
    "features": "the width of the state.",
    "control": "θ, which holds the operators, see `Equation`.",
    "constraint": "the set on which the state stays, see `Equation`.",
    "solver": "the scheme. `LieTrotter()` is the standard Transformer.",
    "mesh": "the steps of the scheme.",
    "key": "draws the weights.",
    "learned_positions": "whether to add position embeddings; otherwise use operators with "
    "positions, such as `Rotary`.",
    "class_token": "whether to put a learned token before the others and read the classes from "
    "it; otherwise from the mean over tokens.",
    "window": "the side of the windows that a token sees, in pixels; by default `stride`.",
    "stride": "the distance between windows, in pixels.",
    "padding": "zeros beyond each edge, in pixels; by default half of the overlap of windows, "
    "rounded up.",
    "channels": "the number of values at each point; `None` for one value without an axis.",
    "output_channels": "the number of values at each point of the output; by default "
    "`channels`.",
    "modes": "the number of waves along each axis that encode the point of a token.",
    "grid": "the points of plain arrays, one rule for all axes or one for each.",
    "wavelength": "the length of the longest wave; by default 1 on a circle, 2 on an interval.",
    "fields": "whether inputs must be a `Field`, because training used other points than "
    "`grid`.",
    "duration": "the time over which the model maps functions in training, see `Timed`.",
    "numbers": "the number of outputs; `None` for one number without an axis.",
    "tied": "whether the read-out uses the token embeddings.",
    "readout_bias": "whether the logits have a bias.",
    "embedding_scale": "a factor of the token embeddings.",
    "embedding_normalization": "the normalization of embedded windows.",
    "area_weights": "whether windows of an image of another size weigh their area.",
    "input_normalization": "the normalization of the state at depth 0.",
    "output_normalization": "the normalization of the state before it is read out.",
    "dropout": "the dropout rate of the embedded inputs.",
    "statistics": "the mean and the standard deviation of each channel of the inputs.",
    "output_statistics": "the mean and the standard deviation of each output.",
    "std": "the standard deviation of the drawn weights.",
}


def _equation(
    *,
    control: AbstractControl,
    constraint: AbstractConstraint | AbstractControl,
    solver: diffrax.AbstractSolver = LieTrotter(),
    mesh: Mesh = Mesh(),
    key: PRNGKeyArray,
) -> None:
    """The arguments that all models have."""


def _builds(
    inputs: Callable[..., Any],
    read_out: Callable[..., Any],
    *,
    keys: Callable[[PRNGKeyArray], Any] = lambda key: (key, jax.random.split(key, 3)[2]),
    names: Mapping[str, str] = {},
    **defaults: Any,
) -> Callable[[Build], Build]:
    """A decorator for functions that build a model of inputs and a read-out: gives them the
    arguments of both. Required ones are positional; `features` is the last of these.

    **Arguments:**

    - `inputs`, `read_out`: functions that build them. Arguments that a `partial` sets are not
      arguments of the model.
    - `keys`: maps the key of the model to the keys of both. By default `inputs` uses two of
      three parts of the key, and `read_out` the third.
    - `names`: more names of arguments of the inputs, besides `_OF_INPUTS`.
    - `defaults`: other defaults.
    """
    empty = inspect.Parameter.empty
    by_name = inspect.Parameter.KEYWORD_ONLY
    parameters = dict(inspect.signature(_equation).parameters)
    of_equation = parameters.keys() - {"key"}
    parts = []
    for build, renamed in ((inputs, {**_OF_INPUTS, **names}), (read_out, _OF_READ_OUTS)):
        fixed = {"key", *getattr(build, "keywords", {})}
        part_names = {}
        for part_name, parameter in inspect.signature(build).parameters.items():
            if part_name in fixed:
                continue
            name = part_names[part_name] = renamed.get(part_name, part_name)
            default = defaults.get(name, parameter.default)
            kind = parameter.kind if default is empty else by_name
            parameters.setdefault(
                name, parameter.replace(name=name, default=default, kind=kind)
            )
        parts.append((build, part_names))
    ordered = sorted(
        parameters.values(), key=lambda x: (x.kind is by_name, x.name == "features")
    )

    def decorate(function: Build) -> Build:
        signature = inspect.Signature(
            ordered, return_annotation=function.__annotations__["return"]
        )

        @ft.wraps(function)
        def build(*args: Any, **kwargs: Any) -> Model:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            values = bound.arguments
            model_inputs, model_read_out = (
                build_part(key=key, **{x: values[name] for x, name in part_names.items()})
                for key, (build_part, part_names) in zip(
                    keys(values["key"]), parts, strict=True
                )
            )
            equation = {name: values[name] for name in of_equation}
            return Model(inputs=model_inputs, read_out=model_read_out, **equation)

        sentences = "\n".join(f"- `{x.name}`: {_ABOUT[x.name]}" for x in ordered)
        build.__doc__ = f"{inspect.getdoc(function)}\n\n**Arguments:**\n\n{sentences}"
        cast(Any, build).__signature__ = signature
        return cast(Build, checked(build))

    return decorate


def _class_head(
    classes: PositiveInt,
    features: PositiveInt,
    *,
    key: PRNGKeyArray,
    class_token: bool = False,
    normalization: AbstractConstraint = LayerNorm(),
    std: NonNegativeFloat = 0.02,
) -> AbstractClassifier:
    head = PrefixHead if class_token else MeanHead
    return head.build(classes, features, key=key, normalization=normalization, std=std)


def _states_or_classes(
    features: PositiveInt,
    *,
    key: PRNGKeyArray,
    classes: PositiveInt | None = None,
    class_token: bool = False,
    normalization: AbstractConstraint = LayerNorm(),
    std: NonNegativeFloat = 0.02,
) -> AbstractReadOut:
    if classes is None:
        return States()
    return _class_head(
        classes,
        features,
        key=key,
        class_token=class_token,
        normalization=normalization,
        std=std,
    )


@_builds(ft.partial(TextInputs.build, class_token=False, masks=True), TokenLogits.build)
def LanguageModel(*args: Any, **kwargs: Any) -> Model[TextInputs, TokenLogits]:
    """A causal language model: token and position embeddings, the equation, logits.

    `model(tokens)` maps integers `[..., tokens]`, or a `Text`, to `[..., tokens, vocabulary]`.
    `control` must have causal operators.
    """
    ...


@_builds(TextInputs.build, _class_head)
def SequenceClassifier(*args: Any, **kwargs: Any) -> Model[TextInputs, AbstractClassifier]:
    """A classifier of sequences: embeddings, the equation, and logits of the classes,

        W mean_x N(u(x, T)) + b,    or    W N(u(0, T)) + b    with a class token at 0.

    `model(tokens)` maps integers `[..., tokens]`, or a `Text`, to logits `[..., classes]`.
    Texts have a mask only with a class token.
    """
    ...


@_builds(ft.partial(TextInputs.build, class_token=False, masks=False), MeanValues.build)
def SequenceRegressor(*args: Any, **kwargs: Any) -> Model[TextInputs, MeanValues]:
    """A map from sequences to numbers: embeddings, the equation, and the mean over tokens.

    `model(tokens)` maps integers, or a `Text` without a mask, to `[...]` or `[..., numbers]`.
    """
    ...


@_builds(
    ft.partial(
        ImageInputs.build,
        window=None,
        padding=None,
        learned_positions=True,
        embedding_normalization=Free(),
    ),
    _class_head,
    names={"stride": "patch"},
)
def ImageClassifier(
    *args: Any, **kwargs: Any
) -> Model[AbstractImageInputs, AbstractClassifier]:
    """A vision Transformer: the patches of an image are the points of a two-dimensional Ω_x.

    `model(images)` maps images, see `ImageInputs`, to logits `[..., classes]`.

    Reference: Dosovitskiy et al., arXiv 2010.11929.
    """
    ...


@_builds(
    ft.partial(ImageInputs.build, learned_positions=False, statistics=None),
    _states_or_classes,
    keys=lambda key: (key, jax.random.split(key)[1]),
    stride=1,
    embedding_normalization=LayerNorm(),
)
def ImageStage(*args: Any, **kwargs: Any) -> Model[AbstractImageInputs, AbstractReadOut]:
    """A stage of a convolutional vision Transformer: a strided convolution embeds an image, or
    the states of the previous stage, on a grid of tokens.

    It has no position embeddings; convolutions replace them. `StagedModel` joins stages; only
    the last may have a class token. Without `classes` the outputs are the states.

    Reference: Wu et al., arXiv 2103.15808.
    """
    ...


@checked
def StagedModel(
    stages: tuple[Model[ImageInputs, AbstractReadOut], ...],
) -> Model[AbstractImageInputs, AbstractReadOut]:
    """Joins stages that are solved one after the other, each on its own grid; see `ImageStage`
    and `StageInputs`. The last one reads out. `model.equations` has an entry for each stage."""
    if not stages:
        raise InputError("StagedModel: stages=() is empty; pass at least one stage.")
    model: Model = stages[0]
    for stage in stages[1:]:
        model = stage.with_inputs(StageInputs(model, stage.inputs))
    return model


# For models without the argument `duration`.
_of_functions = ft.partial(
    _builds,
    ft.partial(FunctionInputs.build, duration=1.0),
    keys=jax.random.split,
    grid="midpoint",
)


@_builds(FunctionInputs.build, FunctionValues.build, keys=jax.random.split)
def OperatorModel(*args: Any, **kwargs: Any) -> Model[FunctionInputs, FunctionValues]:
    """A map from functions to functions, see `FunctionInputs`.

    `model(a)` maps values at points, or a `Field`, to values of the same shape. Use causal
    operators if a value may depend only on earlier ones.
    """
    ...


@_of_functions(MeanHead.build)
def FunctionClassifier(*args: Any, **kwargs: Any) -> Model[FunctionInputs, MeanHead]:
    """A classifier of functions, such as series of measurements in time.

    `model(a)` maps values at points, or a `Field`, to logits `[..., classes]`, see `MeanHead`.
    """
    ...


@_of_functions(MeanValues.build)
def FunctionRegressor(*args: Any, **kwargs: Any) -> Model[FunctionInputs, MeanValues]:
    """A map from functions to numbers (a functional), such as the drag of a flow.

    `model(a)` maps values at points, or a `Field`, to `[...]` or `[..., numbers]`.
    """
    ...
