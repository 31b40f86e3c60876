"""From a configuration to the objects it describes."""

from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from ..equation import (
    AbstractConstraint,
    AbstractControl,
    AbstractOperator,
    Attention,
    Dropout,
    FeedForward,
    Free,
    GatedFeedForward,
    LayerNorm,
    NoPositions,
    RMSNorm,
    RMSSphere,
    Rotary,
    Sphere,
    Tied,
    gelu,
    gelu_tanh,
    relu,
)
from ..errors import InputError
from ..models import AbstractModel, ImageClassifier, LanguageModel, Scheme
from ..solvers import AbstractSplitting, Projected
from ..tasks import (
    AbstractTask,
    ClassificationTask,
    LanguageTask,
    digits,
    idx_folder,
    read_text,
    shakespeare,
)
from .config import Config, ModelConfig, SolverConfig
from .names import find_control, find_solver


_ACTIVATIONS = {"relu": relu, "gelu": gelu, "gelu_tanh": gelu_tanh}


def build_task(config: Config) -> AbstractTask:
    """The data of a run, ready to be drawn from."""
    data, model = config.data, config.model
    if model.kind == "language_model":
        text = shakespeare() if data.path is None else read_text(data.path)
        return LanguageTask(
            text,
            model.context,
            tokenizer=data.tokenizer,
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
    return LanguageModel(
        vocabulary,
        model.context,
        model.width,
        learned_positions=model.positions == "learned",
        tied=model.tied,
        **_parts(config, key),
    )


def _parts(config: Config, key: PRNGKeyArray) -> dict[str, Any]:
    """What all models are made of."""
    model = config.model
    control_key, constraint_key, model_key = jax.random.split(key, 3)
    control_class: Any = find_control("control.kind", config.control.kind)
    control = control_class.build(_block_maker(model), model.depth, key=control_key)
    constrained = model.constraint != "free"
    return dict(
        control=control,
        constraint=_constraint_control(model, control, constraint_key),
        scheme=build_scheme(config.solver, constrained=constrained),
        input_normalization=_constraint(model, model.constraint),
        output_normalization=Free() if constrained else _output_normalization(model),
        dropout=model.dropout,
        std=model.std,
        key=model_key,
    )


def build_scheme(config: SolverConfig, *, constrained: bool) -> Scheme:
    """The time-stepping scheme; where the state is constrained, every step of an unsplit
    scheme and every sub-step of a splitting is projected."""
    solver_class = find_solver("solver.kind", config.kind)
    project = Projected if constrained else lambda solver: solver
    if issubclass(solver_class, AbstractSplitting):
        if config.sub_solver is None:
            sub_solver = solver_class().sub_solver
        else:
            sub_solver = find_solver("solver.sub_solver", config.sub_solver)()
        solver = solver_class(sub_solver=project(sub_solver))  # pyright: ignore[reportCallIssue]
    elif config.sub_solver is not None:
        raise InputError(
            f"solver.sub_solver={config.sub_solver}: {config.kind} does not split the "
            "equation, so it has no sub-solver; drop it, or choose a splitting scheme such as "
            "solver.kind=lie_trotter."
        )
    else:
        solver = project(solver_class())
    if config.rtol is None or config.atol is None:
        return Scheme(solver, steps_per_interval=config.steps_per_interval)
    controller = diffrax.PIDController(rtol=config.rtol, atol=config.atol)
    return Scheme(solver, stepsize_controller=controller, max_steps=config.max_steps)


def _block_maker(
    model: ModelConfig,
) -> Callable[[PRNGKeyArray], tuple[AbstractOperator, ...]]:
    # Each operator adds its output to the state once a layer; scaled so, their sum over all
    # layers starts at the size of one (GPT-2).
    output_std = model.std / (len(model.operators) * model.depth) ** 0.5
    shared: dict[str, Any] = dict(bias=model.bias, std=model.std, output_std=output_std)

    def make(name: str, key: PRNGKeyArray) -> AbstractOperator:
        normalization = _constraint(model, model.normalization)
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


def _constraint_control(
    model: ModelConfig, control: AbstractControl, key: PRNGKeyArray
) -> AbstractControl:
    """One constraint for each operator, whose weights vary over depth as the control's."""
    if model.constraint == "free":
        return Tied(Free(), control.num_intervals)

    def block(key: PRNGKeyArray) -> tuple[AbstractConstraint, ...]:
        return tuple(_constraint(model, model.constraint) for _ in model.operators)

    return type(control).build(block, model.depth, key=key)  # pyright: ignore


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
