"""Functions that build models with random weights."""

import jax
from jaxtyping import PRNGKeyArray

from ..arguments import (
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    checked,
)
from ..equation import (
    AbstractConstraint,
    AbstractControl,
    Free,
    LayerNorm,
    PointRule,
    TokenDomain,
)
from ..errors import InputError
from ..integration import Mesh
from .chains import GridInputs, StageInputs
from .functions import FunctionInputs, FunctionValues
from .images import AbstractImageInputs, ImageInputs
from .model import Model
from .parts import AbstractReadOut
from .read_outs import AbstractClassifier, MeanHead, MeanValues, PrefixHead, States, TokenLogits
from .text_inputs import TextInputs
from .units import Statistics


@checked
def LanguageModel(
    vocabulary: PositiveInt,
    context: PositiveInt,
    features: PositiveInt,
    *,
    control: AbstractControl,
    constraint: AbstractConstraint | AbstractControl,
    mesh: Mesh = Mesh(),
    key: PRNGKeyArray,
    learned_positions: bool = True,
    tied: bool = True,
    readout_bias: bool = False,
    embedding_scale: float = 1.0,
    input_normalization: AbstractConstraint = Free(),
    output_normalization: AbstractConstraint = LayerNorm(),
    dropout: Fraction = 0.0,
    std: NonNegativeFloat = 0.02,
) -> Model[TextInputs, TokenLogits]:
    """A causal language model: token and position embeddings, the equation, logits.

    `model(tokens)` maps integers `[..., tokens]`, or a `Text`, to `[..., tokens, vocabulary]`.

    **Arguments:**

    - `control`: θ, with causal operators.
    - `constraint`, `mesh`: see `Model`.
    - `embedding_scale`, `input_normalization`: `scale` and `normalization` of `TextInputs`.
    - `readout_bias`, `output_normalization`: `bias` and `normalization` of `TokenLogits`.
    - the others: see `TextInputs.build` and `TokenLogits.build`.
    """
    *_, read_out_key = jax.random.split(key, 3)  # the inputs use the others
    inputs = TextInputs.build(
        vocabulary,
        context,
        features,
        key=key,
        learned_positions=learned_positions,
        normalization=input_normalization,
        scale=embedding_scale,
        dropout=dropout,
        std=std,
    )
    read_out = TokenLogits.build(
        vocabulary,
        features,
        key=read_out_key,
        tied=tied,
        bias=readout_bias,
        normalization=output_normalization,
        std=std,
    )
    return Model(inputs, control, constraint, mesh, read_out)


@checked
def SequenceClassifier(
    vocabulary: PositiveInt,
    context: PositiveInt,
    classes: PositiveInt,
    features: PositiveInt,
    *,
    control: AbstractControl,
    constraint: AbstractConstraint | AbstractControl,
    mesh: Mesh = Mesh(),
    key: PRNGKeyArray,
    learned_positions: bool = True,
    class_token: bool = False,
    input_normalization: AbstractConstraint = Free(),
    output_normalization: AbstractConstraint = LayerNorm(),
    dropout: Fraction = 0.0,
    std: NonNegativeFloat = 0.02,
) -> Model[TextInputs, AbstractClassifier]:
    """A classifier of sequences: embeddings, the equation, and logits of the classes,

        W mean_x N(u(x, T)) + b,    or    W N(u(0, T)) + b    with a class token at 0.

    `model(tokens)` maps integers `[..., tokens]`, or a `Text`, to logits `[..., classes]`.

    **Arguments:** see `TextInputs.build` and `LanguageModel`, and

    - `class_token`: read from a learned token; otherwise from the mean, without a mask.
    """
    *_, head_key = jax.random.split(key, 3)  # the inputs use the others
    inputs = TextInputs.build(
        vocabulary,
        context,
        features,
        key=key,
        learned_positions=learned_positions,
        class_token=class_token,
        masks=class_token,
        normalization=input_normalization,
        dropout=dropout,
        std=std,
    )
    read_out = _class_head(classes, features, head_key, class_token, output_normalization, std)
    return Model(inputs, control, constraint, mesh, read_out)


@checked
def ImageClassifier(
    image_shape: tuple[PositiveInt, PositiveInt, PositiveInt],
    patch: PositiveInt,
    classes: PositiveInt,
    features: PositiveInt,
    *,
    control: AbstractControl,
    constraint: AbstractConstraint | AbstractControl,
    mesh: Mesh = Mesh(),
    key: PRNGKeyArray,
    class_token: bool = False,
    area_weights: bool = True,
    input_normalization: AbstractConstraint = Free(),
    output_normalization: AbstractConstraint = LayerNorm(),
    dropout: Fraction = 0.0,
    statistics: Statistics | None = None,
    std: NonNegativeFloat = 0.02,
) -> Model[AbstractImageInputs, AbstractClassifier]:
    """A vision Transformer: the patches of an image are the points of a two-dimensional Ω_x.

    `model(images)` maps images, see `ImageInputs`, to logits `[..., classes]`.

    **Arguments:** see `ImageInputs.build` and `LanguageModel`, and

    - `patch`: the side of a patch in pixels; it must divide rows and columns.
    - `class_token`: read from a learned token; otherwise from the mean over patches.

    Reference: Dosovitskiy et al., arXiv 2010.11929.
    """
    *_, head_key = jax.random.split(key, 3)  # the inputs use the others
    inputs = ImageInputs.build(
        image_shape,
        patch,
        features,
        key=key,
        class_token=class_token,
        normalization=input_normalization,
        area_weights=area_weights,
        dropout=dropout,
        statistics=statistics,
        std=std,
    )
    read_out = _class_head(classes, features, head_key, class_token, output_normalization, std)
    return Model(inputs, control, constraint, mesh, read_out)


@checked
def ImageStage(
    image_shape: tuple[PositiveInt, PositiveInt, PositiveInt],
    features: PositiveInt,
    *,
    control: AbstractControl,
    constraint: AbstractConstraint | AbstractControl,
    mesh: Mesh = Mesh(),
    key: PRNGKeyArray,
    window: PositiveInt | None = None,
    stride: PositiveInt = 1,
    padding: NonNegativeInt | None = None,
    class_token: bool = False,
    classes: PositiveInt | None = None,
    area_weights: bool = True,
    embedding_normalization: AbstractConstraint = LayerNorm(),
    input_normalization: AbstractConstraint = Free(),
    output_normalization: AbstractConstraint = LayerNorm(),
    dropout: Fraction = 0.0,
    std: NonNegativeFloat = 0.02,
) -> Model[AbstractImageInputs, AbstractReadOut]:
    """A stage of a convolutional vision Transformer: a strided convolution embeds an image, or
    the states of the previous stage, on a grid of tokens.

    There are no position embeddings: windows see positions. `StagedModel` joins stages.

    **Arguments:** see `ImageInputs.build` and `LanguageModel`, and

    - `class_token`: whether to put a learned token before the grid; only in the last stage.
    - `classes`: to read from the class token or the mean; `None` to return the states.

    Reference: Wu et al., arXiv 2103.15808.
    """
    inputs = ImageInputs.build(
        image_shape,
        stride,
        features,
        key=key,
        window=window,
        padding=padding,
        class_token=class_token,
        learned_positions=False,
        embedding_normalization=embedding_normalization,
        normalization=input_normalization,
        area_weights=area_weights,
        dropout=dropout,
        std=std,
    )
    read_out = States()
    if classes is not None:
        _, head_key = jax.random.split(key)
        norm = output_normalization
        read_out = _class_head(classes, features, head_key, class_token, norm, std)
    return Model(inputs, control, constraint, mesh, read_out)


@checked
def StagedModel(
    stages: tuple[Model[ImageInputs, AbstractReadOut], ...],
) -> Model[AbstractImageInputs, AbstractReadOut]:
    """Stages solved one after the other, each on its own grid, see `ImageStage` and
    `StageInputs`. The last reads out. `model.equations` has an entry for each stage."""
    if not stages:
        raise InputError("StagedModel: stages=() is empty; give one or more.")
    model: Model = stages[0]
    for stage in stages[1:]:
        model = stage.with_inputs(StageInputs(model, stage.inputs))
    return model


@checked
def OperatorModel(
    points: PositiveInt | tuple[PositiveInt, ...],
    features: PositiveInt,
    *,
    control: AbstractControl,
    constraint: AbstractConstraint | AbstractControl,
    mesh: Mesh = Mesh(),
    key: PRNGKeyArray,
    channels: PositiveInt | None = None,
    output_channels: PositiveInt | None = None,
    modes: NonNegativeInt = 8,
    grid: PointRule | tuple[PointRule, ...] = "periodic",
    wavelength: PositiveFloat | None = None,
    input_normalization: AbstractConstraint = Free(),
    output_normalization: AbstractConstraint = LayerNorm(),
    dropout: Fraction = 0.0,
    fields: bool = False,
    statistics: Statistics | None = None,
    output_statistics: Statistics | None = None,
    duration: PositiveFloat = 1.0,
    std: NonNegativeFloat = 0.02,
) -> Model[FunctionInputs, FunctionValues]:
    """A map from functions to functions, see `FunctionInputs`.

    `model(a)` maps values at points, or a `Field`, to values of the same shape. Give causal
    operators if a value may depend only on earlier ones.

    **Arguments:** see `FunctionInputs.build`, `FunctionValues.build` and `LanguageModel`, and

    - `statistics`, `output_statistics`: of `FunctionInputs` and of `FunctionValues`.
    """
    inputs_key, read_out_key = jax.random.split(key)
    inputs = FunctionInputs.build(
        points,
        features,
        key=inputs_key,
        channels=channels,
        modes=modes,
        grid=grid,
        wavelength=wavelength,
        normalization=input_normalization,
        dropout=dropout,
        fields=fields,
        statistics=statistics,
        duration=duration,
        std=std,
    )
    read_out = FunctionValues.build(
        features,
        key=read_out_key,
        channels=channels,
        output_channels=output_channels,
        normalization=output_normalization,
        statistics=output_statistics,
        std=std,
    )
    return Model(inputs, control, constraint, mesh, read_out)


@checked
def FunctionClassifier(
    points: PositiveInt | tuple[PositiveInt, ...],
    classes: PositiveInt,
    features: PositiveInt,
    *,
    control: AbstractControl,
    constraint: AbstractConstraint | AbstractControl,
    mesh: Mesh = Mesh(),
    key: PRNGKeyArray,
    channels: PositiveInt | None = None,
    modes: NonNegativeInt = 8,
    grid: PointRule | tuple[PointRule, ...] = "midpoint",
    wavelength: PositiveFloat | None = None,
    input_normalization: AbstractConstraint = Free(),
    output_normalization: AbstractConstraint = LayerNorm(),
    dropout: Fraction = 0.0,
    fields: bool = False,
    statistics: Statistics | None = None,
    std: NonNegativeFloat = 0.02,
) -> Model[FunctionInputs, MeanHead]:
    """A classifier of functions, such as series of measurements in time.

    `model(a)` maps values at points, or a `Field`, to logits `[..., classes]`, see `MeanHead`.

    **Arguments:** see `FunctionInputs.build` and `LanguageModel`.
    """
    inputs_key, head_key = jax.random.split(key)
    inputs = FunctionInputs.build(
        points,
        features,
        key=inputs_key,
        channels=channels,
        modes=modes,
        grid=grid,
        wavelength=wavelength,
        normalization=input_normalization,
        dropout=dropout,
        fields=fields,
        statistics=statistics,
        std=std,
    )
    read_out = MeanHead.build(
        classes, features, key=head_key, normalization=output_normalization, std=std
    )
    return Model(inputs, control, constraint, mesh, read_out)


@checked
def FunctionRegressor(
    points: PositiveInt | tuple[PositiveInt, ...],
    features: PositiveInt,
    *,
    control: AbstractControl,
    constraint: AbstractConstraint | AbstractControl,
    mesh: Mesh = Mesh(),
    key: PRNGKeyArray,
    numbers: PositiveInt | None = None,
    channels: PositiveInt | None = None,
    modes: NonNegativeInt = 8,
    grid: PointRule | tuple[PointRule, ...] = "midpoint",
    wavelength: PositiveFloat | None = None,
    input_normalization: AbstractConstraint = Free(),
    output_normalization: AbstractConstraint = LayerNorm(),
    dropout: Fraction = 0.0,
    fields: bool = False,
    statistics: Statistics | None = None,
    output_statistics: Statistics | None = None,
    std: NonNegativeFloat = 0.02,
) -> Model[FunctionInputs, MeanValues]:
    """A map from functions to numbers (a functional), such as the drag of a flow.

    `model(a)` maps values at points, or a `Field`, to `[...]` or `[..., numbers]`.

    **Arguments:** see `FunctionInputs.build`, `MeanValues.build` and `LanguageModel`, and

    - `statistics`, `output_statistics`: of `FunctionInputs` and of `MeanValues`.
    """
    inputs_key, read_out_key = jax.random.split(key)
    inputs = FunctionInputs.build(
        points,
        features,
        key=inputs_key,
        channels=channels,
        modes=modes,
        grid=grid,
        wavelength=wavelength,
        normalization=input_normalization,
        dropout=dropout,
        fields=fields,
        statistics=statistics,
        std=std,
    )
    read_out = MeanValues.build(
        numbers,
        features,
        key=read_out_key,
        normalization=output_normalization,
        statistics=output_statistics,
        std=std,
    )
    return Model(inputs, control, constraint, mesh, read_out)


@checked
def SequenceRegressor(
    vocabulary: PositiveInt,
    context: PositiveInt,
    features: PositiveInt,
    *,
    control: AbstractControl,
    constraint: AbstractConstraint | AbstractControl,
    mesh: Mesh = Mesh(),
    key: PRNGKeyArray,
    numbers: PositiveInt | None = None,
    learned_positions: bool = True,
    input_normalization: AbstractConstraint = Free(),
    output_normalization: AbstractConstraint = LayerNorm(),
    dropout: Fraction = 0.0,
    output_statistics: Statistics | None = None,
    std: NonNegativeFloat = 0.02,
) -> Model[TextInputs, MeanValues]:
    """A map from sequences to numbers: embeddings, the equation, and the mean over tokens.

    `model(tokens)` maps integers, or a `Text` without a mask, to `[...]` or `[..., numbers]`.

    **Arguments:** see `TextInputs.build`, `MeanValues.build` and `LanguageModel`, and

    - `output_statistics`: the `statistics` of `MeanValues`.
    """
    *_, head_key = jax.random.split(key, 3)  # the inputs use the others
    inputs = TextInputs.build(
        vocabulary,
        context,
        features,
        key=key,
        learned_positions=learned_positions,
        masks=False,
        normalization=input_normalization,
        dropout=dropout,
        std=std,
    )
    read_out = MeanValues.build(
        numbers,
        features,
        key=head_key,
        normalization=output_normalization,
        statistics=output_statistics,
        std=std,
    )
    return Model(inputs, control, constraint, mesh, read_out)


@checked
def StateModel(
    domain: TokenDomain,
    width: PositiveInt,
    *,
    control: AbstractControl,
    constraint: AbstractConstraint | AbstractControl,
    mesh: Mesh = Mesh(),
) -> Model[GridInputs, States]:
    """An equation alone, on a grid of tokens: `u(0) ↦ u(T)`, `[..., tokens, features]`."""
    return Model(GridInputs(domain, width), control, constraint, mesh, States())


def _class_head(
    classes: int,
    features: int,
    key: PRNGKeyArray,
    class_token: bool,
    normalization: AbstractConstraint,
    std: float,
) -> AbstractClassifier:
    head = PrefixHead if class_token else MeanHead
    return head.build(classes, features, key=key, normalization=normalization, std=std)
