"""Functions that build models with random weights."""

import diffrax
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
from ..equation import AbstractConstraint, AbstractControl, Free, LayerNorm, PointRule
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
from .units import Statistics


def _read_out_key(key: PRNGKeyArray) -> PRNGKeyArray:
    """The third part of the key of a model; its inputs use the first two."""
    return jax.random.split(key, 3)[2]


def _class_head(
    classes: int,
    features: int,
    class_token: bool,
    normalization: AbstractConstraint,
    std: float,
    key: PRNGKeyArray,
) -> AbstractClassifier:
    head = PrefixHead if class_token else MeanHead
    return head.build(classes, features, key=key, normalization=normalization, std=std)


@checked
def LanguageModel(
    vocabulary: PositiveInt,
    context: PositiveInt,
    features: PositiveInt,
    *,
    control: AbstractControl,
    constraint: AbstractConstraint | AbstractControl,
    solver: diffrax.AbstractSolver = LieTrotter(),
    mesh: Mesh = Mesh(),
    key: PRNGKeyArray,
    learned_positions: bool = True,
    input_normalization: AbstractConstraint = Free(),
    embedding_scale: float = 1.0,
    dropout: Fraction = 0.0,
    std: NonNegativeFloat = 0.02,
    tied: bool = True,
    readout_bias: bool = False,
    output_normalization: AbstractConstraint = LayerNorm(),
) -> Model[TextInputs, TokenLogits]:
    """A causal language model: token and position embeddings, the equation, logits.

    `model(tokens)` maps integers `[..., tokens]`, or a `Text`, to `[..., tokens, vocabulary]`.
    `control` must have causal operators.

    **Arguments:** `control`, `constraint`, `solver` and `mesh` are those of `Model`.

    - `vocabulary`: the number of tokens that the model knows.
    - `context`: the longest text, in tokens.
    - `features`: the width of the state.
    - `key`: draws the weights.
    - `learned_positions`: whether to add position embeddings; otherwise use operators with
      positions, such as `Rotary`.
    - `input_normalization`: the normalization of the state at depth 0.
    - `embedding_scale`: a factor of the token embeddings.
    - `dropout`: the dropout rate of the embedded inputs.
    - `std`: the standard deviation of the drawn weights.
    - `tied`: whether the read-out uses the token embeddings.
    - `readout_bias`: whether the logits have a bias.
    - `output_normalization`: the normalization of the state before it is read out.
    """
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
        key=_read_out_key(key),
        tied=tied,
        bias=readout_bias,
        normalization=output_normalization,
        std=std,
    )
    return Model(inputs, control, constraint, read_out, solver=solver, mesh=mesh)


@checked
def SequenceClassifier(
    vocabulary: PositiveInt,
    context: PositiveInt,
    classes: PositiveInt,
    features: PositiveInt,
    *,
    control: AbstractControl,
    constraint: AbstractConstraint | AbstractControl,
    solver: diffrax.AbstractSolver = LieTrotter(),
    mesh: Mesh = Mesh(),
    key: PRNGKeyArray,
    learned_positions: bool = True,
    class_token: bool = False,
    input_normalization: AbstractConstraint = Free(),
    embedding_scale: float = 1.0,
    dropout: Fraction = 0.0,
    std: NonNegativeFloat = 0.02,
    output_normalization: AbstractConstraint = LayerNorm(),
) -> Model[TextInputs, AbstractClassifier]:
    """A classifier of sequences: embeddings, the equation, and logits of the classes,

        W mean_x N(u(x, T)) + b,    or    W N(u(0, T)) + b    with a class token at 0.

    `model(tokens)` maps integers `[..., tokens]`, or a `Text`, to logits `[..., classes]`.
    Texts have a mask only with a class token.

    **Arguments:** see `LanguageModel` for arguments not listed.

    - `classes`: the number of classes.
    - `class_token`: whether to put a learned token before the others and read the classes from
      it; otherwise from the mean over tokens.
    """
    inputs = TextInputs.build(
        vocabulary,
        context,
        features,
        key=key,
        learned_positions=learned_positions,
        class_token=class_token,
        masks=class_token,
        normalization=input_normalization,
        scale=embedding_scale,
        dropout=dropout,
        std=std,
    )
    read_out = _class_head(
        classes, features, class_token, output_normalization, std, _read_out_key(key)
    )
    return Model(inputs, control, constraint, read_out, solver=solver, mesh=mesh)


@checked
def SequenceRegressor(
    vocabulary: PositiveInt,
    context: PositiveInt,
    features: PositiveInt,
    *,
    control: AbstractControl,
    constraint: AbstractConstraint | AbstractControl,
    solver: diffrax.AbstractSolver = LieTrotter(),
    mesh: Mesh = Mesh(),
    key: PRNGKeyArray,
    learned_positions: bool = True,
    input_normalization: AbstractConstraint = Free(),
    embedding_scale: float = 1.0,
    dropout: Fraction = 0.0,
    std: NonNegativeFloat = 0.02,
    numbers: PositiveInt | None = None,
    output_normalization: AbstractConstraint = LayerNorm(),
    output_statistics: Statistics | None = None,
) -> Model[TextInputs, MeanValues]:
    """A map from sequences to numbers: embeddings, the equation, and the mean over tokens.

    `model(tokens)` maps integers, or a `Text` without a mask, to `[...]` or `[..., numbers]`.

    **Arguments:** see `LanguageModel` for arguments not listed.

    - `numbers`: the number of outputs; `None` for one number without an axis.
    - `output_statistics`: the mean and the standard deviation of each output.
    """
    inputs = TextInputs.build(
        vocabulary,
        context,
        features,
        key=key,
        learned_positions=learned_positions,
        masks=False,
        normalization=input_normalization,
        scale=embedding_scale,
        dropout=dropout,
        std=std,
    )
    read_out = MeanValues.build(
        features,
        key=_read_out_key(key),
        numbers=numbers,
        normalization=output_normalization,
        statistics=output_statistics,
        std=std,
    )
    return Model(inputs, control, constraint, read_out, solver=solver, mesh=mesh)


@checked
def ImageClassifier(
    image_shape: tuple[PositiveInt, PositiveInt, PositiveInt],
    patch: PositiveInt,
    classes: PositiveInt,
    features: PositiveInt,
    *,
    control: AbstractControl,
    constraint: AbstractConstraint | AbstractControl,
    solver: diffrax.AbstractSolver = LieTrotter(),
    mesh: Mesh = Mesh(),
    key: PRNGKeyArray,
    class_token: bool = False,
    input_normalization: AbstractConstraint = Free(),
    area_weights: bool = True,
    dropout: Fraction = 0.0,
    statistics: Statistics | None = None,
    std: NonNegativeFloat = 0.02,
    output_normalization: AbstractConstraint = LayerNorm(),
) -> Model[AbstractImageInputs, AbstractClassifier]:
    """A vision Transformer: the patches of an image are the points of a two-dimensional Ω_x.

    `model(images)` maps images, see `ImageInputs`, to logits `[..., classes]`.

    Reference: Dosovitskiy et al., arXiv 2010.11929.

    **Arguments:** see `LanguageModel` for arguments not listed.

    - `image_shape`: (rows, columns, channels) of a full-sized image.
    - `patch`: the side of a patch in pixels; it must divide rows and columns.
    - `classes`, `class_token`: see `SequenceClassifier`.
    - `area_weights`: whether windows of an image of another size weigh their area.
    - `statistics`: the mean and the standard deviation of each channel of the inputs.
    """
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
    read_out = _class_head(
        classes, features, class_token, output_normalization, std, _read_out_key(key)
    )
    return Model(inputs, control, constraint, read_out, solver=solver, mesh=mesh)


@checked
def ImageStage(
    image_shape: tuple[PositiveInt, PositiveInt, PositiveInt],
    features: PositiveInt,
    *,
    control: AbstractControl,
    constraint: AbstractConstraint | AbstractControl,
    solver: diffrax.AbstractSolver = LieTrotter(),
    mesh: Mesh = Mesh(),
    key: PRNGKeyArray,
    stride: PositiveInt = 1,
    window: PositiveInt | None = None,
    padding: NonNegativeInt | None = None,
    class_token: bool = False,
    embedding_normalization: AbstractConstraint = LayerNorm(),
    input_normalization: AbstractConstraint = Free(),
    area_weights: bool = True,
    dropout: Fraction = 0.0,
    std: NonNegativeFloat = 0.02,
    classes: PositiveInt | None = None,
    output_normalization: AbstractConstraint = LayerNorm(),
) -> Model[AbstractImageInputs, AbstractReadOut]:
    """A stage of a convolutional vision Transformer: a strided convolution embeds an image, or
    the states of the previous stage, on a grid of tokens.

    It has no position embeddings; convolutions replace them. `StagedModel` joins stages; only
    the last may have a class token. Without `classes` the outputs are the states.

    Reference: Wu et al., arXiv 2103.15808.

    **Arguments:** see `LanguageModel` and `ImageClassifier` for arguments not listed.

    - `stride`: the distance between windows, in pixels.
    - `window`: the side of the windows that a token sees, in pixels; by default `stride`.
    - `padding`: zeros beyond each edge, in pixels; by default half of the overlap of windows,
      rounded up.
    - `embedding_normalization`: the normalization of embedded windows.
    - `classes`, `class_token`: see `SequenceClassifier`.
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
        head_key = jax.random.split(key)[1]
        read_out = _class_head(
            classes, features, class_token, output_normalization, std, head_key
        )
    return Model(inputs, control, constraint, read_out, solver=solver, mesh=mesh)


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


@checked
def OperatorModel(
    points: PositiveInt | tuple[PositiveInt, ...],
    features: PositiveInt,
    *,
    control: AbstractControl,
    constraint: AbstractConstraint | AbstractControl,
    solver: diffrax.AbstractSolver = LieTrotter(),
    mesh: Mesh = Mesh(),
    key: PRNGKeyArray,
    channels: PositiveInt | None = None,
    modes: NonNegativeInt = 8,
    grid: PointRule | tuple[PointRule, ...] = "periodic",
    wavelength: PositiveFloat | None = None,
    input_normalization: AbstractConstraint = Free(),
    dropout: Fraction = 0.0,
    fields: bool = False,
    statistics: Statistics | None = None,
    duration: PositiveFloat = 1.0,
    std: NonNegativeFloat = 0.02,
    output_channels: PositiveInt | None = None,
    output_normalization: AbstractConstraint = LayerNorm(),
    output_statistics: Statistics | None = None,
) -> Model[FunctionInputs, FunctionValues]:
    """A map from functions to functions, see `FunctionInputs`.

    `model(a)` maps values at points, or a `Field`, to values of the same shape. Use causal
    operators if a value may depend only on earlier ones.

    **Arguments:** see `LanguageModel` for arguments not listed.

    - `points`: the number of points in training, or one number for each axis.
    - `channels`: the number of values at each point; `None` for one value without an axis.
    - `modes`: the number of waves along each axis that encode the point of a token.
    - `grid`: the points of plain arrays, one rule for all axes or one for each.
    - `wavelength`: the length of the longest wave; by default 1 on a circle, 2 on an interval.
    - `fields`: whether inputs must be a `Field`, because training used other points than
      `grid`.
    - `statistics`: the mean and the standard deviation of each channel of the inputs.
    - `duration`: the time over which the model maps functions in training, see `Timed`.
    - `output_channels`: the number of values at each point of the output; by default
      `channels`.
    - `output_statistics`: the mean and the standard deviation of each output.
    """
    input_key, read_out_key = jax.random.split(key)
    inputs = FunctionInputs.build(
        points,
        features,
        key=input_key,
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
    return Model(inputs, control, constraint, read_out, solver=solver, mesh=mesh)


@checked
def FunctionClassifier(
    points: PositiveInt | tuple[PositiveInt, ...],
    classes: PositiveInt,
    features: PositiveInt,
    *,
    control: AbstractControl,
    constraint: AbstractConstraint | AbstractControl,
    solver: diffrax.AbstractSolver = LieTrotter(),
    mesh: Mesh = Mesh(),
    key: PRNGKeyArray,
    channels: PositiveInt | None = None,
    modes: NonNegativeInt = 8,
    grid: PointRule | tuple[PointRule, ...] = "midpoint",
    wavelength: PositiveFloat | None = None,
    input_normalization: AbstractConstraint = Free(),
    dropout: Fraction = 0.0,
    fields: bool = False,
    statistics: Statistics | None = None,
    std: NonNegativeFloat = 0.02,
    output_normalization: AbstractConstraint = LayerNorm(),
) -> Model[FunctionInputs, MeanHead]:
    """A classifier of functions, such as series of measurements in time.

    `model(a)` maps values at points, or a `Field`, to logits `[..., classes]`, see `MeanHead`.

    **Arguments:** see `LanguageModel` and `OperatorModel` for arguments not listed.

    - `classes`: the number of classes.
    """
    input_key, read_out_key = jax.random.split(key)
    inputs = FunctionInputs.build(
        points,
        features,
        key=input_key,
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
        classes, features, key=read_out_key, normalization=output_normalization, std=std
    )
    return Model(inputs, control, constraint, read_out, solver=solver, mesh=mesh)


@checked
def FunctionRegressor(
    points: PositiveInt | tuple[PositiveInt, ...],
    features: PositiveInt,
    *,
    control: AbstractControl,
    constraint: AbstractConstraint | AbstractControl,
    solver: diffrax.AbstractSolver = LieTrotter(),
    mesh: Mesh = Mesh(),
    key: PRNGKeyArray,
    channels: PositiveInt | None = None,
    modes: NonNegativeInt = 8,
    grid: PointRule | tuple[PointRule, ...] = "midpoint",
    wavelength: PositiveFloat | None = None,
    input_normalization: AbstractConstraint = Free(),
    dropout: Fraction = 0.0,
    fields: bool = False,
    statistics: Statistics | None = None,
    std: NonNegativeFloat = 0.02,
    numbers: PositiveInt | None = None,
    output_normalization: AbstractConstraint = LayerNorm(),
    output_statistics: Statistics | None = None,
) -> Model[FunctionInputs, MeanValues]:
    """A map from functions to numbers (a functional), such as the drag of a flow.

    `model(a)` maps values at points, or a `Field`, to `[...]` or `[..., numbers]`.

    **Arguments:** see `LanguageModel` and `OperatorModel` for arguments not listed.

    - `numbers`: the number of outputs; `None` for one number without an axis.
    """
    input_key, read_out_key = jax.random.split(key)
    inputs = FunctionInputs.build(
        points,
        features,
        key=input_key,
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
        features,
        key=read_out_key,
        numbers=numbers,
        normalization=output_normalization,
        statistics=output_statistics,
        std=std,
    )
    return Model(inputs, control, constraint, read_out, solver=solver, mesh=mesh)
