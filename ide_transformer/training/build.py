"""From a configuration to the objects it describes."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from ..equation import (
    AbstractConstraint,
    AbstractControl,
    AbstractOperator,
    Attention,
    Damping,
    Dropout,
    FeatureIntegral,
    FeedForward,
    Free,
    GatedFeedForward,
    LayerNorm,
    NoPositions,
    Relaxation,
    RMSNorm,
    RMSSphere,
    Rotary,
    SourcedAttention,
    Sphere,
    gelu,
    gelu_tanh,
    relu,
)
from ..errors import InputError
from ..models import AbstractModel, ImageClassifier, LanguageModel
from ..pretrained import find_pretrained, load_pretrained
from ..tasks import (
    AbstractTask,
    ClassificationTask,
    LanguageTask,
    PretrainedTokenizer,
    digits,
    idx_folder,
    read_text,
    shakespeare,
)
from .build_discretization import build_discretization, with_configured_solver
from .config import Config, ModelConfig
from .names import check_options, find_control


_ACTIVATIONS = {"relu": relu, "gelu": gelu, "gelu_tanh": gelu_tanh}


def build_task(config: Config) -> AbstractTask:
    """The data of a run, ready to be drawn from."""
    data, model = config.data, config.model
    if model.kind == "language_model":
        text = shakespeare() if data.path is None else read_text(data.path)
        tokenizer = data.tokenizer
        if model.pretrained is not None:
            tokenizer = PretrainedTokenizer.from_pretrained(find_pretrained(model.pretrained))
        return LanguageTask(
            text,
            model.context,
            tokenizer=tokenizer,
            vocabulary=data.vocabulary,
            held_out_fraction=data.validation,
        )
    train, test = digits() if data.path is None else idx_folder(data.path)
    rows, columns = train.images.shape[1:3]
    patches = (rows // model.patch) * (columns // model.patch)
    return ClassificationTask(train, test, patches=patches)


def build_model(config: Config, task: AbstractTask, key: PRNGKeyArray) -> AbstractModel:
    """The model of a run, with weights drawn from `key`."""
    if isinstance(task, LanguageTask):
        return build_language_model(config, task.tokenizer.vocabulary, key)
    assert isinstance(task, ClassificationTask)
    model = config.model
    return ImageClassifier(
        task.image_shape,
        model.patch,
        task.classes,
        model.width,
        class_token=model.class_token,
        **_parts(config, key),
    )


def build_language_model(config: Config, vocabulary: int, key: PRNGKeyArray) -> LanguageModel:
    """The language model of a run, for a vocabulary of that size."""
    model = config.model
    if model.pretrained is not None:
        return _pretrained(config, model.pretrained)
    return LanguageModel(
        vocabulary,
        model.context,
        model.width,
        learned_positions=model.positions == "learned",
        tied=model.tied,
        **_parts(config, key),
    )


def _pretrained(config: Config, path: str) -> LanguageModel:
    """The language model of a checkpoint, solved by the configured scheme."""
    model = load_pretrained(path)
    if not isinstance(model, LanguageModel):
        raise InputError(
            f"model.pretrained={path} holds a {type(model).__name__}; a language model is "
            "needed here."
        )
    return with_configured_solver(model, config.solver)


def _parts(config: Config, key: PRNGKeyArray) -> dict[str, Any]:
    """What all models are made of."""
    model = config.model
    control_key, constraint_key, model_key = jax.random.split(key, 3)
    build_control = _control_maker(config)
    constrained = model.constraint != "free"
    return dict(
        control=build_control(_block_maker(model), control_key),
        constraint=_constraint_control(model, build_control, constraint_key),
        discretization=build_discretization(
            config.solver, width=model.width, constrained=constrained
        ),
        input_normalization=_constraint(
            model, model.constraint if constrained else model.input_normalization
        ),
        output_normalization=Free() if constrained else _output_normalization(model),
        dropout=model.dropout,
        std=model.std,
        key=model_key,
    )


def _block_maker(
    model: ModelConfig,
) -> Callable[[PRNGKeyArray], tuple[AbstractOperator, ...]]:
    # Each operator adds its output to the state once a layer; scaled so, their sum over all
    # layers starts at the size of one (GPT-2).
    output_std = model.std / (len(model.operators) * model.depth) ** 0.5
    shared: dict[str, Any] = dict(bias=model.bias, std=model.std, output_std=output_std)

    def make(name: str, key: PRNGKeyArray) -> AbstractOperator:
        normalization = _constraint(model, model.normalization)
        if name == "sourced_attention":
            first, second = jax.random.split(key)
            return SourcedAttention(make("attention", first), key=second, std=model.std)  # pyright: ignore
        if name in ("damping", "relaxation"):
            kind = Damping if name == "damping" else Relaxation
            return kind(jnp.full(model.width, model.damping))
        if name == "feature_integral":
            return FeatureIntegral(
                model.width,
                normalization=normalization,
                bias=model.bias,
                std=output_std,
                key=key,
            )
        if name == "attention":
            return Attention(
                model.width,
                model.heads,
                key_value_heads=model.key_value_heads,
                causal=model.kind == "language_model",
                positions=Rotary() if model.positions == "rotary" else NoPositions(),
                normalization=normalization,
                key=key,
                **shared,
            )
        if model.activation == "swiglu":
            return GatedFeedForward(
                model.width, model.hidden, normalization=normalization, key=key, **shared
            )
        return FeedForward(
            model.width,
            model.hidden,
            activation=_ACTIVATIONS[model.activation],
            normalization=normalization,
            key=key,
            **shared,
        )

    def block(key: PRNGKeyArray) -> tuple[AbstractOperator, ...]:
        keys = jax.random.split(key, len(model.operators))
        operators = (make(*pair) for pair in zip(model.operators, keys, strict=True))
        if not model.dropout:
            return tuple(operators)
        return tuple(Dropout(operator, model.dropout) for operator in operators)

    return block


def _control_maker(config: Config) -> Callable[[Callable, PRNGKeyArray], AbstractControl]:
    """Builds a control of the configured kind from a maker of blocks and a key."""
    kind: Any = find_control("control.kind", config.control.kind)
    options, depth = config.control.options, config.model.depth
    check_options(
        "control.options", options, kind.build, {"make_block", "num_intervals", "key"}
    )

    def build(make_block: Callable, key: PRNGKeyArray) -> AbstractControl:
        control = kind.build(make_block, depth, key=key, **options)
        if config.control.horizon is None:
            return control
        return dataclasses.replace(control, interval_length=config.control.horizon / depth)

    return build


def _constraint_control(
    model: ModelConfig,
    build_control: Callable[[Callable, PRNGKeyArray], AbstractControl],
    key: PRNGKeyArray,
) -> AbstractControl | AbstractConstraint:
    """One constraint for each operator, whose weights vary over depth as the control's."""
    if model.constraint == "free":
        return Free()

    def block(key: PRNGKeyArray) -> tuple[AbstractConstraint, ...]:
        return tuple(_constraint(model, model.constraint) for _ in model.operators)

    return build_control(block, key)


def _output_normalization(model: ModelConfig) -> AbstractConstraint:
    name = "layer_norm" if model.normalization == "none" else model.normalization
    return _constraint(model, name)


def _constraint(model: ModelConfig, name: str) -> AbstractConstraint:
    gain = jnp.ones(model.width)
    bias = jnp.zeros(model.width) if model.bias else None
    match name:
        case "layer_norm":
            return LayerNorm(gain, bias)
        case "rms_norm":
            return RMSNorm(gain)
        case "sphere":
            return Sphere(gain, bias, eps=1e-5)
        case "rms_sphere":
            return RMSSphere(gain, eps=1e-5)
        case _:
            return Free()
