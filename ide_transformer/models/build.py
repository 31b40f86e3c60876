"""Models put together from parts, with weights to be trained or of a checkpoint."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

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
    Linear,
    PointRule,
    TokenDomain,
)
from ..errors import InputError
from ..integration import Mesh
from .audio import AudioInputs, TokenConvolution
from .chains import EncodedInputs, GridInputs, StageInputs
from .functions import FunctionInputs, FunctionValues
from .images import AbstractImageInputs, ImageInputs
from .model import Model
from .parts import AbstractInputs, AbstractReadOut
from .read_outs import (
    AbstractClassifier,
    MaskedTokenHead,
    MeanHead,
    PrefixHead,
    States,
    TokenLogits,
)
from .text_inputs import TextInputs


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
    own_velocity: bool = False,
) -> Model[TextInputs, TokenLogits]:
    """A causal language model: token and position embeddings, the equation, logits.

    `model(tokens)` maps `tokens: [..., tokens]`, integers, or a `Text`, to the logits of the
    next token, `[..., tokens, vocabulary]`.

    **Arguments:**

    - `vocabulary`, `context`, `features`: sizes; `context` is the longest input.
    - `control`: θ, of causal operators.
    - `constraint`, `mesh`: see `Model`.
    - `learned_positions`: whether to add a learned embedding of the position; without it the
      operators must see positions (rotary).
    - `tied`, `readout_bias`: whether the logits are read by the token embedding, with a bias.
    - `embedding_scale`: multiplies the embedded tokens, not the read-out.
    - `input_normalization`, `output_normalization`: of the embedded input, and of what is read.
    - `dropout`: the rate on the embedded input; `std`: of the initial embeddings.
    - `own_velocity`: whether the velocity of a scheme with momentum starts from a token
      embedding of its own, as in YuriiFormer (arXiv 2601.23236), and not at zero.
    """
    token_key, position_key, key = jax.random.split(key, 3)
    velocity_key = jax.random.fold_in(token_key, 1)
    inputs = TextInputs(
        _table(vocabulary, features, std, token_key),
        context,
        positions=_table(context, features, std, position_key) if learned_positions else None,
        velocity=_table(vocabulary, features, std, velocity_key) if own_velocity else None,
        normalization=input_normalization,
        scale=embedding_scale,
        dropout=dropout,
    )
    read_out = TokenLogits(
        None if tied else _table(vocabulary, features, std, key),
        jnp.zeros(vocabulary) if readout_bias else None,
        output_normalization,
    )
    return Model(inputs, control, constraint, mesh, read_out)


@checked
def TextEncoder(
    embedding: Float[Array, "vocabulary embedded"],
    *,
    control: AbstractControl,
    constraint: AbstractConstraint | AbstractControl,
    mesh: Mesh = Mesh(),
    context: PositiveInt,
    positions: Float[Array, "places embedded"] | None = None,
    segments: Float[Array, "kinds embedded"] | None = None,
    lift: Linear | None = None,
    input_normalization: AbstractConstraint = Free(),
    output_normalization: AbstractConstraint = Free(),
    pooler: Linear | None = None,
    head: MaskedTokenHead | None = None,
    padding: NonNegativeInt | None = None,
    dropout: Fraction = 0.0,
) -> Model[TextInputs, States]:
    """An encoder of texts: embeddings, see `TextInputs`, the equation without a causal order,
    the states at depth T, `[..., tokens, features]`, see `States`."""
    inputs = TextInputs(
        embedding,
        context,
        positions=positions,
        segments=segments,
        lift=lift,
        normalization=input_normalization,
        dropout=dropout,
        padding=padding,
    )
    read_out = States(output_normalization, pooler, head)
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
    """A classifier of sequences: token and position embeddings, the equation without a causal
    order, the logits of the classes from the states at depth T,

        W mean_x N(u(x, T)) + b,    or    W N(u(0, T)) + b    with a class token at 0.

    `model(tokens)` maps integers `[..., tokens]`, or a `Text`, to logits `[..., classes]`.

    **Arguments:** see `LanguageModel`, and

    - `class_token`: whether to read the class from an extra learned token before the others;
      otherwise from the mean over all of them, for which they must have no mask.
    """
    token_key, position_key, key = jax.random.split(key, 3)
    inputs = TextInputs(
        _table(vocabulary, features, std, token_key),
        context,
        positions=_table(context, features, std, position_key) if learned_positions else None,
        prefix=(jnp.zeros(features),) if class_token else (),
        normalization=input_normalization,
        dropout=dropout,
        masks=class_token,
    )
    linear = Linear(features, classes, std=std, key=key)
    read_out = _classifier(linear, class_token, output_normalization)
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
    std: NonNegativeFloat = 0.02,
) -> Model[AbstractImageInputs, AbstractClassifier]:
    """A vision Transformer to be trained: patches of an image are the points of a
    two-dimensional Ω_x. `model(images)` maps images, see `ImageInputs`, to the logits of the
    classes, `[..., classes]`. Reference: Dosovitskiy et al., arXiv 2010.11929.

    **Arguments:** see `LanguageModel`, and

    - `image_shape`, `area_weights`: see `ImageInputs`.
    - `patch`: the side of a patch in pixels; it must divide rows and columns.
    - `class_token`: whether to read the class from an extra learned token, which is put
      before the patches; otherwise it is read from the mean over patches.
    """
    rows, columns, channels = image_shape
    keys = jax.random.split(key, 3)
    tokens = (rows // patch) * (columns // patch) + class_token
    inputs = ImageInputs(
        image_shape,
        Linear(patch * patch * channels, features, std=std, key=keys[0]),
        patch,
        patch,
        prefix=(jnp.zeros(features),) if class_token else (),
        positions=_table(tokens, features, std, keys[1]),
        normalization=input_normalization,
        area_weights=area_weights,
        dropout=dropout,
    )
    linear = Linear(features, classes, std=std, key=keys[2])
    read_out = _classifier(linear, class_token, output_normalization)
    return Model(inputs, control, constraint, mesh, read_out)


@checked
def ImageEncoder(
    image_shape: tuple[PositiveInt, PositiveInt, PositiveInt],
    patch: PositiveInt,
    *,
    embedding: Linear,
    prefix: tuple[Float[Array, " features"], ...],
    positions: Float[Array, "tokens features"],
    control: AbstractControl,
    constraint: AbstractConstraint | AbstractControl,
    mesh: Mesh = Mesh(),
    read_out: AbstractReadOut = States(),
) -> Model[AbstractImageInputs, AbstractReadOut]:
    """An encoder of images with weights that exist: a few learned tokens and the patches, see
    `ImageInputs`; the equation; the states or classes. Images of another size are refused; for
    these put it on another mesh, `model.on(Mesh(tokens=(rows, columns)))`."""
    inputs = ImageInputs(
        image_shape,
        embedding,
        patch,
        patch,
        prefix=prefix,
        positions=positions,
        fixed_size=True,
    )
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
    the states of the stage before, on a grid of tokens. There are no positions: the windows and
    the operators `ConvolutionalAttention` tell where a token is. `StagedModel` puts stages
    together. Reference: Wu et al., arXiv 2103.15808.

    **Arguments:** see `ImageInputs` and `LanguageModel`, and

    - `window`, `padding`: default: patches that do not overlap, and half of the overlap,
      rounded up.
    - `class_token`: whether a learned token is put before the grid; the last stage only may
      have one.
    - `classes`: how many there are to be read out, from the class token or from the mean over
      tokens; `None` for a stage that gives its states.
    """
    window = stride if window is None else window
    embedding_key, head_key = jax.random.split(key)
    inputs = ImageInputs(
        image_shape,
        Linear(window * window * image_shape[2], features, std=std, key=embedding_key),
        stride,
        window,
        max(window - stride + 1, 0) // 2 if padding is None else padding,
        prefix=(jnp.zeros(features),) if class_token else (),
        embedding_normalization=embedding_normalization,
        normalization=input_normalization,
        area_weights=area_weights,
        dropout=dropout,
    )
    read_out = States()
    if classes is not None:
        linear = Linear(features, classes, std=std, key=head_key)
        read_out = _classifier(linear, class_token, output_normalization)
    return Model(inputs, control, constraint, mesh, read_out)


@checked
def StagedModel(
    stages: tuple[Model[ImageInputs, AbstractReadOut], ...],
) -> Model[AbstractImageInputs, AbstractReadOut]:
    """Equations one after the other, each on a domain of its own, see `StageInputs`, such as
    `ImageStage` makes them; the last one reads the outputs out. `model.equations` are those of
    the stages; the inputs of each but the first hold all before it."""
    if not stages:
        raise InputError("StagedModel: stages=() is empty; give one or more.")
    model: Any = stages[0]
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
    std: NonNegativeFloat = 0.02,
) -> Model[FunctionInputs, FunctionValues]:
    """A map from functions to functions, on the circle or on the interval [0, 1], or on the
    product of several of them: tokens are points x with quadrature weights. `model(a)` maps
    values at points, or a `Field`, to values of the same shape. Operators are causal where
    a value may depend on those before it alone.

    **Arguments:**

    - `output_channels`: values at each point of the outputs; by default as many as `channels`,
      and only beside these.

    For the others see `FunctionInputs` and `LanguageModel`."""
    values, dimension = channels or 1, len(points) if isinstance(points, tuple) else 1
    if output_channels is not None and channels is None:
        raise InputError(
            f"OperatorModel: output_channels={output_channels} for inputs without an axis of "
            "channels; give channels=1, and inputs with a last axis of one value."
        )
    keys = jax.random.split(key)
    inputs = FunctionInputs(
        points,
        Linear(values + 2 * modes * dimension, features, std=std, key=keys[0]),
        channels=channels,
        modes=modes,
        grid=grid,
        wavelength=wavelength,
        normalization=input_normalization,
        dropout=dropout,
        fields=fields,
    )
    linear = Linear(features, output_channels or values, std=std, key=keys[1])
    read_out = FunctionValues(linear, output_normalization, channels is not None)
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
    """An equation alone, on a grid of tokens, see `GridInputs`: `u(0) ↦ u(T)`,
    `[..., tokens, features]`."""
    inputs = GridInputs(domain, width)
    return Model(inputs, control, constraint, mesh, States())


@checked
def SpeechEncoder(
    first_convolution: TokenConvolution,
    second_convolution: TokenConvolution,
    positions: Float[Array, "tokens features"],
    *,
    control: AbstractControl,
    constraint: AbstractConstraint | AbstractControl,
    mesh: Mesh = Mesh(),
    output_normalization: AbstractConstraint = LayerNorm(),
) -> Model[AudioInputs, States]:
    """An encoder of speech: two convolutions along the frames of a log-mel spectrogram, see
    `AudioInputs`, the equation, the states at depth T, `[..., tokens, features]`."""
    inputs = AudioInputs(first_convolution, second_convolution, positions)
    return Model(inputs, control, constraint, mesh, States(output_normalization))


@checked
def EncoderDecoder(
    encoder: Model[AbstractInputs, States], decoder: Model[TextInputs, TokenLogits]
) -> Model[EncodedInputs, TokenLogits]:
    """Two equations, one after the other: the encoder is solved to depth T, and its states f
    on Ω_x' enter the equation of the decoder on Ω_x through cross-attention,

        v_t = Σ_i A_i(v; θ(t)),      v(0) = embedded source,   f = N(v(T)),
        u_t = Σ_j B_j(u, f; η(t)),   u(0) = embedded text,     logits = read-out of u(T'),

    with a control, a constraint and a mesh for each. `model(SourceAndText(source,
    text))` gives the logits of the next token, `[..., tokens, vocabulary]`. The encoder becomes
    `model.inputs.encoder`; the decoder has `CrossAttention` among its operators.
    """
    return decoder.with_inputs(EncodedInputs(encoder, decoder.inputs))


@checked
def TranslationModel(
    vocabulary: PositiveInt,
    context: PositiveInt,
    features: PositiveInt,
    *,
    control: AbstractControl,
    make_encoder_control: Callable[[], AbstractControl],
    constraint: AbstractConstraint | AbstractControl,
    mesh: Mesh = Mesh(),
    key: PRNGKeyArray,
    learned_positions: bool = True,
    tied: bool = True,
    input_normalization: AbstractConstraint = Free(),
    output_normalization: AbstractConstraint = LayerNorm(),
    dropout: Fraction = 0.0,
    std: NonNegativeFloat = 0.02,
) -> Model[EncodedInputs, TokenLogits]:
    """An `EncoderDecoder` to be trained, which reads and writes texts of one vocabulary, each
    of at most `context` tokens.

    **Arguments:** see `LanguageModel`; `control` is that of the decoder, and

    - `make_encoder_control`: makes that of the encoder, whose attention sees all of a text.
    """
    if not isinstance(constraint, AbstractConstraint):
        raise InputError(
            "TranslationModel: a constraint with weights belongs to one of its two equations; "
            "take a set without, such as Sphere() or Free()."
        )
    keys = jax.random.split(key, 3)
    options: Any = dict(
        constraint=constraint,
        mesh=mesh,
        input_normalization=input_normalization,
        output_normalization=output_normalization,
        dropout=dropout,
    )
    encoder = TextEncoder(
        _table(vocabulary, features, std, keys[0]),
        positions=_table(context, features, std, keys[1]) if learned_positions else None,
        control=make_encoder_control(),
        context=context,
        **options,
    )
    decoder = LanguageModel(
        vocabulary,
        context,
        features,
        control=control,
        learned_positions=learned_positions,
        tied=tied,
        std=std,
        key=keys[2],
        **options,
    )
    return EncoderDecoder(encoder, decoder)


def _table(rows: int, features: int, std: float, key: PRNGKeyArray) -> Float[Array, "rows _"]:
    """A table to be trained, such as that of the embeddings of tokens."""
    return std * jax.random.normal(key, (rows, features))


def _classifier(
    linear: Linear, class_token: bool, normalization: AbstractConstraint
) -> AbstractClassifier:
    if class_token:
        return PrefixHead((linear,), normalization)
    return MeanHead(linear, normalization)
