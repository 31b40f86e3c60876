"""Builds the task and the model that a configuration describes."""

import dataclasses
import functools as ft
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from ... import equation, models
from ...equation import (
    AbstractConstraint,
    AbstractControl,
    AbstractOperator,
    Free,
    partition_weights,
    with_low_rank,
)
from ...errors import InputError, at
from ...integration import Mesh
from ...integration.mesh import check_steps
from ...memory import check_bytes
from ...models import Model, check_causal, is_built_as, kinds_of
from ...pretrained import find_pretrained, load_pretrained
from ...tasks import AbstractTask, AbstractTokenizer, PretrainedTokenizer, load_tokenizer
from ..configuration.config import (
    NATIVE,
    Config,
    ControlConfig,
    DataConfig,
    LowRankConfig,
    ModelConfig,
    SolverConfig,
)
from ..configuration.reader import Offers, find, find_function, parameters_of, read, snake_case
from .memory import size_bytes
from .optimizer import path_of


def build_task(config: Config, tokenizer: AbstractTokenizer | None = None) -> AbstractTask:
    """The data of a run.

    **Arguments:**

    - `tokenizer`: used instead of a learned one, if the task takes a tokenizer. Default: the
      tokenizer of the run or checkpoint `model.pretrained`.
    """
    model = config.model
    data = config.data
    kind = task_class(config)
    offered: dict[str, Any] = {"context": model.context, "patch": model.side_of_token}
    if tokenizer is None and model.run is not None:
        file = Path(model.run, "tokenizer.json")
        tokenizer = load_tokenizer(file) if file.is_file() else None
    if tokenizer is not None:
        parameter = parameters_of(kind).get("tokenizer")
        if parameter is not None and AbstractTokenizer in get_args(parameter.annotation):
            offered["tokenizer"] = tokenizer
            data = data.replace(tokenizer=None)
    elif model.pretrained is not None and kind.model is models.LanguageModel:
        path = find_pretrained(model.pretrained)
        offered["tokenizer"] = PretrainedTokenizer.from_pretrained(path)
    return read(
        AbstractTask,
        data.description,
        "data",
        offers={AbstractTask: offered},
        beside=[field.name for field in dataclasses.fields(DataConfig)],
    )


def task_class(config: Config) -> type[AbstractTask]:
    """The class of the task of a run. Reads no data."""
    return find("data.name", config.data.name, AbstractTask)


class ModelNeeds(NamedTuple):
    """Requirements of the data of a run for its model.

    - `data`: `data.name`, for messages.
    - `builder`: a function that builds the models which learn the data.
    - `causal`: whether a token may see earlier tokens only.
    - `sizes`: arguments of the model that the data decide, for example `{"vocabulary": 84}`.
    """

    data: str
    builder: Callable[..., Model]
    causal: bool
    sizes: Mapping[str, Any]

    def check_causal(self, model: Model) -> None:
        """Raises `InputError` if a model sees tokens that it must not see."""
        if self.causal:
            check_causal(f"data.name={self.data}", model)

    def check_kind(self, kind: str) -> None:
        """Raises `InputError` if the models of `model.kind` cannot learn the data."""
        required_kinds = kinds_of(self.builder)
        pairs = zip(kinds_of(find("model.kind", kind, Model)), required_kinds, strict=True)
        if not all(issubclass(a, b) or issubclass(b, a) for a, b in pairs):
            raise InputError(
                f"model.kind={kind}: data.name={self.data} needs "
                f"{' and '.join(part.__name__ for part in required_kinds)}; set "
                f"model.kind={snake_case(self.builder.__name__)}, or model."
            )


def needs_of(config: Config, sizes: Mapping[str, Any]) -> ModelNeeds:
    """The requirements of the data of a run that have these sizes. Reads no data."""
    kind = task_class(config)
    causal = bool(config.data.options.get("causal", kind.causal))
    return ModelNeeds(config.data.name, kind.model, causal, sizes)


def build_model(config: Config, task: AbstractTask, key: PRNGKeyArray) -> Model:
    """The model of a run, with weights drawn from `key`.

    **Raises:** `InputError` for a run that does not fit into memory, before any weight is
    drawn; for a model that sees the tokens that it must predict.
    """
    pretrained = config.model.pretrained
    checkpoint = config.model.checkpoint
    if config.model.run is None and checkpoint != "newest":
        raise InputError(f"model.checkpoint={checkpoint}: model.pretrained must be a run.")
    # A task of arrays decides by its data which models learn it.
    needs = needs_of(config, task.sizes)._replace(builder=task.model)
    build = ft.partial(_build, config, needs)
    try:
        model = build(key) if pretrained is not None else eqx.filter_eval_shape(build, key)
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError):
        # A class that reads the values of its arrays cannot be built from shapes alone.
        model = build(key)
    if pretrained is not None:
        _check_tokens(pretrained, task, model)
    check_memory(config, task, model)
    model = build(key) if pretrained is None else model
    needs.check_causal(model)
    return model


def check_memory(config: Config, task: AbstractTask, model: Model) -> None:
    """Raises `InputError` if the weights and a batch of a run need more memory than the machine
    has. `model` may hold shapes."""
    training = config.training
    # A weight that is trained has a gradient and, in AdamW, two moments.
    trained, frozen = partition_weights(model)
    size = 4 * size_bytes(trained) + size_bytes(frozen)
    size += training.batch_size * size_bytes(task.batch(0, 1, training.seed))
    size += 4 * training.part_size * task.tokens_per_sample * model.features
    # Names the largest keys in the error.
    sections = ("data", "model", "control")
    tree = {name: x for name, x in config.as_tree().items() if name in sections}
    numbers = [
        (x, path_of(key)) for key, x in jax.tree.leaves_with_path(tree) if type(x) is int
    ]
    largest = ", ".join(f"{key}={x}" for x, key in sorted(numbers, reverse=True)[:6])
    batch = f"training.batch_size={training.batch_size}"
    check_bytes("this run", size, f"Lower the larger ones of {largest} and {batch}.")


def build_model_of_size(config: Config, sizes: Mapping[str, Any], key: PRNGKeyArray) -> Model:
    """The model of a run, for a task of these `sizes`, for example `{"vocabulary": 84}`."""
    return _build(config, needs_of(config, sizes), key)


def _build(config: Config, needs: ModelNeeds, key: PRNGKeyArray) -> Model:
    model = _build_trainable(config, needs, key)
    return with_lora(model, config.model.lora, key)


def with_lora(model: Model, config: LowRankConfig | None, key: PRNGKeyArray) -> Model:
    """The model, with the changes of low rank that `model.lora` describes."""
    if config is None:
        return model
    with at("model.lora"):
        return with_low_rank(model, config.rank, config.alpha, config.targets, key=key)


def _build_trainable(config: Config, needs: ModelNeeds, key: PRNGKeyArray) -> Model:
    """The model of a run whose weights are all trained."""
    model = config.model
    if model.pretrained is not None:
        return with_solver(_load_pretrained(model.pretrained, needs), config.solver)
    if (coefficients := model.of_coefficients) is not None:
        basis = read(equation.AbstractBasis, model.basis, "model.basis")
        domain = equation.FeatureDomain(model.width)
        space = equation.FunctionSpace(basis, coefficients.width, domain)
        inner = _build_trainable(config.replace(model=coefficients), needs, key)
        return dataclasses.replace(inner, space=space)
    if model.stages:
        return _build_stages(config, needs, key)
    needs.check_kind(model.kind)
    control_key, constraint_key, model_key = jax.random.split(key, 3)
    offers = offers_of(model, causal=needs.causal)
    read_control = ft.partial(_read_control, config.control, model.layers)
    control = read_control(ft.partial(_read_block, model, offers), control_key)
    set_of_states = read(
        AbstractConstraint, model.constraint, "model.constraint", offers=offers
    )
    constraint = set_of_states
    if jax.tree.leaves(eqx.filter(set_of_states, eqx.is_array)):
        # It is trained: one for each operator and layer.
        each = (set_of_states,) * len(model.operators)
        constraint = read_control(lambda key: each, constraint_key)
    normalization = offers[AbstractOperator]["normalization"]
    # A constraint also projects the embedded input, and the state at T then needs no other
    # normalisation.
    input_normalization = set_of_states
    output_normalization = Free()
    if type(set_of_states) is Free:
        input_normalization = read(
            AbstractConstraint,
            model.input_normalization,
            "model.input_normalization",
            offers=offers,
        )
        output_normalization = normalization
        if type(normalization) is Free:
            default = ModelConfig().normalization
            output_normalization = read(
                AbstractConstraint, default, "model.normalization", offers=offers
            )
    positions = offers[AbstractOperator]["positions"]
    offered = {
        **needs.sizes,
        "features": model.width,
        "context": model.context,
        "patch": model.patch,
        "class_token": model.class_token,
        "tied": model.tied,
        "dropout": model.dropout,
        "std": model.std,
        "learned_positions": type(positions) is equation.NoPositions,
        "control": control,
        "constraint": constraint,
        "input_normalization": input_normalization,
        "embedding_normalization": normalization,
        "output_normalization": output_normalization,
    }
    of_model = dict.fromkeys((Model, models.AbstractInputs, models.AbstractReadOut), offered)
    with at(f"data.name={needs.data}"):
        built = read(Model, model.description, "model", offers=of_model, draws=model_key)
    return with_solver(built, config.solver)


def offers_of(model: ModelConfig, *, causal: bool) -> Offers:
    """The arguments that the section `model` gives to operators and constraints."""
    bias = jnp.zeros(model.width) if model.bias else None
    constraint = {"gain": jnp.ones(model.width), "bias": bias, "eps": 1e-5}
    constraints = {AbstractConstraint: constraint}
    operator = {
        "features": model.width,
        "heads": model.heads,
        "key_value_heads": model.key_value_heads,
        "hidden": model.hidden,
        "bias": model.bias,
        "std": model.std,
        "activation": find_function("model.activation", model.activation),
        "causal": causal,
        "positions": read(equation.AbstractPositions, model.positions, "model.positions"),
        "normalization": read(
            AbstractConstraint, model.normalization, "model.normalization", offers=constraints
        ),
        # Each operator adds its output to the state once a layer. This scale keeps the sum
        # over all layers at the size of one output (GPT-2).
        "output_std": model.std / (len(model.operators) * model.layers) ** 0.5,
        "rate": jnp.full(model.width, model.damping),
    }
    return {AbstractConstraint: constraint, AbstractOperator: operator}


def _read_block(
    model: ModelConfig, offers: Offers, key: PRNGKeyArray
) -> tuple[AbstractOperator, ...]:
    """The operators of one layer."""
    keys = jax.random.split(key, len(model.operators))
    operators = tuple(
        read(AbstractOperator, tree, f"model.operators.{i}", offers=offers, draws=keys[i])
        for i, tree in enumerate(model.operators)
    )
    if not model.dropout:
        return operators
    return tuple(equation.Dropout(operator, model.dropout) for operator in operators)


def _read_control(
    section: ControlConfig, layers: int, make_block: Callable, key: PRNGKeyArray
) -> AbstractControl:
    """The control of the section `control`. `make_block` makes a layer from a key."""
    offers = {AbstractControl: {"make_block": make_block, "layers": layers}}
    control = read(AbstractControl, section.description, "control", offers=offers, draws=key)
    if section.horizon is None:
        return control
    return dataclasses.replace(control, interval_length=section.horizon / layers)


def _build_stages(config: Config, needs: ModelNeeds, key: PRNGKeyArray) -> Model:
    """The model of `model.stages`. Only the last stage reads out classes."""
    last = len(config.model.stages) - 1
    stages: list[Any] = []
    sizes = {**needs.sizes, "classes": None}
    for i, stage_key in enumerate(jax.random.split(key, last + 1)):
        if i == last:
            sizes["classes"] = needs.sizes.get("classes")
        with at(f"model.stages.{i}"):
            stage_needs = needs._replace(sizes=sizes)
            stage = _build_trainable(config.stage(i), stage_needs, stage_key)
            if not isinstance(stage.inputs, models.ImageInputs):
                raise InputError(f"model.kind={config.model.kind}: use image_stage for stages.")
        sizes["image_shape"] = (*stage.inputs.grid, stage.features)
        stages.append(stage)
    return models.StagedModel(tuple(stages))


def with_solver(model: Model, config: SolverConfig) -> Model:
    """The model, solved as the section `solver` describes; `native` keeps its own scheme.

    **Raises:** `InputError` for a scheme that lacks learned weights of the present one.
    """
    if config.kind == NATIVE:
        return model

    def change_solver(part: Model) -> Model:
        # The weights of a scheme have these sizes.
        sizes = {
            "features": part.features,
            "num_steps": part.layers * config.steps,
            "operators": len(eqx.filter_eval_shape(part.control, 0.0)),
        }
        offers = {diffrax.AbstractSolver: sizes}
        solver = read(diffrax.AbstractSolver, config.description, "solver", offers=offers)
        if jax.tree.leaves(eqx.filter(part.solver, eqx.is_inexact_array)):
            raise InputError(
                f"solver.kind={config.kind}: the scheme of this model, "
                f"{type(part.solver).__name__}, has learned weights, which another one would "
                "lose. Change its steps alone, by --mesh steps=2."
            )
        if config.rtol is None or config.atol is None:
            check_steps({"model.layers": part.layers, "solver.steps": config.steps})
            mesh = Mesh(steps=config.steps)
        else:
            mesh = Mesh(
                stepsize_controller=diffrax.PIDController(rtol=config.rtol, atol=config.atol),
                max_steps=config.max_steps,
                steps_for=config.steps_for,
            )
        return dataclasses.replace(part, solver=solver, mesh=mesh)

    return model.each_equation(change_solver)


def _load_pretrained(path: str, needs: ModelNeeds) -> Model:
    """The model of a checkpoint. Raises `InputError` if it cannot learn the data."""
    model = load_pretrained(path)
    if not is_built_as(model, needs.builder):
        raise InputError(
            f"model.pretrained={path} holds a model of {type(model.inputs).__name__} and "
            f"{type(model.read_out).__name__}; data.name={needs.data} needs a "
            f"{needs.builder.__name__}."
        )
    return model


def _check_tokens(path: str, task: AbstractTask, model: Model) -> None:
    """Raises `InputError` if a checkpoint lacks tokens or classes of the data."""
    required = task.sizes.get("vocabulary", 0)
    available = getattr(model.inputs, "vocabulary", required)
    if (classes := task.sizes.get("classes")) is not None:
        outputs = eqx.filter_eval_shape(model, task.batch(0, 1, 0).inputs)
        required = classes
        available = outputs.shape[-1]
    if required > available:
        raise InputError(
            f"model.pretrained={path} has {available} tokens or classes; the "
            f"data have {required}."
        )
