"""Builds the task, the model and the objective that a configuration describes."""

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
from ...dynamics import AbstractCost
from ...equation import (
    AbstractConstraint,
    AbstractControl,
    AbstractOperator,
    Free,
    partition_weights,
    with_low_rank,
)
from ...errors import InputError, at, short
from ...integration import Mesh
from ...integration.mesh import check_steps
from ...memory import check_bytes
from ...models import Model, check_causal, is_built_as, kinds_of
from ...pretrained import find_pretrained, load_pretrained
from ...tasks import (
    AbstractLoss,
    AbstractTask,
    AbstractTokenizer,
    Loss,
    PretrainedTokenizer,
    load_tokenizer,
)
from ..configuration.config import (
    NATIVE,
    Config,
    DataConfig,
    LowRankConfig,
    ModelConfig,
    SolverConfig,
    TrainingConfig,
)
from ..configuration.reader import Given, find, find_function, parameters_of, read, snake_case
from .memory import size_bytes
from .optimizer import build_optimizer, path_of
from .programs import Programs, UpdateRule, make_programs, weight_shapes
from .schedule import growth_of, schedule_of


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
        asked = parameters_of(kind).get("tokenizer")
        if asked is not None and AbstractTokenizer in get_args(asked.annotation):
            offered["tokenizer"] = tokenizer
            data = data.replace(tokenizer=None)
    elif model.pretrained is not None and kind.model is models.LanguageModel:
        path = find_pretrained(model.pretrained)
        offered["tokenizer"] = PretrainedTokenizer.from_pretrained(path)
    given = {AbstractTask: offered}
    beside = [field.name for field in dataclasses.fields(DataConfig)]
    return read(AbstractTask, data.description, "data", given=given, beside=beside)


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


def needs_of(config: Config, sizes: Mapping[str, Any]) -> ModelNeeds:
    """The needs of the data of a run that have these sizes. Reads no data."""
    kind = task_class(config)
    causal = bool(config.data.options.get("causal", kind.causal))
    return ModelNeeds(config.data.name, kind.model, causal, sizes)


def build_model(config: Config, task: AbstractTask, key: PRNGKeyArray) -> Model:
    """The model of a run, with weights drawn from `key`.

    **Raises:** `InputError` for a run that does not fit into memory, before any weight is
    drawn; for a model that sees the tokens that it must predict.
    """
    # A task of arrays decides by its data which models learn it.
    needs = needs_of(config, task.sizes)._replace(builder=task.model)
    build = ft.partial(_build, config, needs)
    pretrained = config.model.pretrained
    try:
        model = build(key) if pretrained is not None else eqx.filter_eval_shape(build, key)
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError):
        # A class that looks at its numbers cannot be made from shapes alone.
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
    needed = 4 * size_bytes(trained) + size_bytes(frozen)
    needed += training.batch_size * size_bytes(task.batch(0, 1, training.seed))
    needed += 4 * training.part_size * task.tokens_per_sample * model.features
    # The keys that make it large.
    sections = ("data", "model", "control")
    tree = {name: x for name, x in config.as_tree().items() if name in sections}
    numbers = [
        (x, path_of(key)) for key, x in jax.tree.leaves_with_path(tree) if type(x) is int
    ]
    largest = ", ".join(f"{key}={x}" for x, key in sorted(numbers, reverse=True)[:6])
    batch = f"training.batch_size={training.batch_size}"
    check_bytes("this run", needed, f"Lower the larger ones of {largest} and {batch}.")


def build_model_of_size(config: Config, sizes: Mapping[str, Any], key: PRNGKeyArray) -> Model:
    """The model of a run, for a task of these `sizes`, for example `{"vocabulary": 84}`."""
    return _build(config, needs_of(config, sizes), key)


def _build(config: Config, needs: ModelNeeds, key: PRNGKeyArray) -> Model:
    return with_lora(_whole_model(config, needs, key), config.model.lora, key)


def first_model(config: Config, build: Callable[[Config], Model]) -> Model:
    """The model with which a run begins. Its weights are drawn for the first phase, since the
    mean of the draws of several layers would be small."""
    model = build(config)
    layers = config.training.phases[0].layers
    if layers is None:
        return model
    growth = growth_of(config)
    with at(f"training.schedule: layers={layers}"):
        coarse = growth.coarse(model, layers)
    if not growth.averages or weight_shapes(coarse) == weight_shapes(model):
        return coarse
    return build(config.on_layers(layers))


def build_programs(config: Config, model: Model) -> Programs:
    """The programs of a run from its `first_model`, which may hold shapes instead of arrays."""
    training = config.training
    rule = UpdateRule(
        build_optimizer(config.optimizer, training.steps),
        training.average,
        training.accumulate,
        training.max_bad_steps,
    )
    return make_programs(model, schedule_of(config), growth_of(config), rule)


def with_lora(model: Model, config: LowRankConfig | None, key: PRNGKeyArray) -> Model:
    """The model, with the changes of low rank that `model.lora` describes."""
    if config is None:
        return model
    with at("model.lora"):
        return with_low_rank(model, config.rank, config.alpha, config.targets, key=key)


def _whole_model(config: Config, needs: ModelNeeds, key: PRNGKeyArray) -> Model:
    """The model of a run whose weights are all trained."""
    model = config.model
    if model.pretrained is not None:
        return with_solver(
            _pretrained(model.pretrained, model.checkpoint, needs), config.solver
        )
    if (coefficients := model.of_coefficients) is not None:
        basis = read(equation.AbstractBasis, model.basis, "model.basis")
        domain = equation.FeatureDomain(model.width)
        space = equation.FunctionSpace(basis, coefficients.width, domain)
        inner = config.replace(model=coefficients)
        return dataclasses.replace(_whole_model(inner, needs, key), space=space)
    if model.stages:
        return _staged_model(config, needs, key)
    control_key, constraint_key, model_key = jax.random.split(key, 3)
    parts = offers_of(model, causal=needs.causal)
    control = _control(config, ft.partial(make_block, model, parts), control_key)
    one = read(AbstractConstraint, model.constraint, "model.constraint", given=parts)
    trained = bool(jax.tree.leaves(eqx.filter(one, eqx.is_array)))
    ones = (one,) * len(model.operators)
    constraint = _control(config, lambda key: ones, constraint_key) if trained else one

    # A constraint also projects the embedded input, and the state at T then needs no other
    # normalisation.
    given = parts[AbstractOperator]
    into = one
    output = Free()
    if type(one) is Free:
        key_of_input = "model.input_normalization"
        into = read(AbstractConstraint, model.input_normalization, key_of_input, given=parts)
        output = given["normalization"]
        if type(output) is Free:
            default = ModelConfig().normalization
            output = read(AbstractConstraint, default, "model.normalization", given=parts)
    asked = ("context", "patch", "class_token", "tied", "dropout", "std")
    offered = {
        **needs.sizes,
        **{name: getattr(model, name) for name in asked},
        "features": model.width,
        "learned_positions": type(given["positions"]) is equation.NoPositions,
        "control": control,
        "constraint": constraint,
        "input_normalization": into,
        "embedding_normalization": given["normalization"],
        "output_normalization": output,
    }
    check_kind(model.kind, needs)
    offers = dict.fromkeys((Model, models.AbstractInputs, models.AbstractReadOut), offered)
    with at(f"data.name={needs.data}"):
        built = read(Model, model.description, "model", given=offers, draws=model_key)
    return with_solver(built, config.solver)


def check_kind(kind: str, needs: ModelNeeds) -> None:
    """Raises `InputError` if the models of `model.kind` cannot learn the data."""
    wanted = kinds_of(needs.builder)
    pairs = zip(kinds_of(find("model.kind", kind, Model)), wanted, strict=True)
    if not all(issubclass(one, other) or issubclass(other, one) for one, other in pairs):
        parts = " and ".join(part.__name__ for part in wanted)
        raise InputError(
            f"model.kind={kind}: data.name={needs.data} is learned by {parts}; set "
            f"model.kind={snake_case(needs.builder.__name__)}, or model."
        )


def offers_of(model: ModelConfig, *, causal: bool) -> Given:
    """The arguments that the section `model` gives to operators and constraints."""
    bias = jnp.zeros(model.width) if model.bias else None
    constraint = {"gain": jnp.ones(model.width), "bias": bias, "eps": 1e-5}
    constraints = {AbstractConstraint: constraint}
    key = "model.normalization"
    normalization = read(AbstractConstraint, model.normalization, key, given=constraints)
    asked = ("heads", "key_value_heads", "hidden", "bias", "std")
    operator = {
        **{name: getattr(model, name) for name in asked},
        "features": model.width,
        "activation": find_function("model.activation", model.activation),
        "causal": causal,
        "positions": read(equation.AbstractPositions, model.positions, "model.positions"),
        "normalization": normalization,
        # Each operator adds its output to the state once a layer. This scale keeps the sum
        # over all layers at the size of one output (GPT-2).
        "output_std": model.std / (len(model.operators) * model.layers) ** 0.5,
        "rate": jnp.full(model.width, model.damping),
    }
    return {AbstractConstraint: constraint, AbstractOperator: operator}


def make_block(
    model: ModelConfig, given: Given, key: PRNGKeyArray
) -> tuple[AbstractOperator, ...]:
    """The operators of one layer."""
    keys = jax.random.split(key, len(model.operators))
    operators = tuple(
        read(AbstractOperator, tree, f"model.operators.{i}", given=given, draws=keys[i])
        for i, tree in enumerate(model.operators)
    )
    if not model.dropout:
        return operators
    return tuple(equation.Dropout(operator, model.dropout) for operator in operators)


def _control(config: Config, block: Callable, key: PRNGKeyArray) -> AbstractControl:
    """A control of the configured kind. `block` makes a layer from a key."""
    layers = config.model.layers
    given = {AbstractControl: {"make_block": block, "layers": layers}}
    tree = config.control.description
    control = read(AbstractControl, tree, "control", given=given, draws=key)
    if config.control.horizon is None:
        return control
    return dataclasses.replace(control, interval_length=config.control.horizon / layers)


def _staged_model(config: Config, needs: ModelNeeds, key: PRNGKeyArray) -> Model:
    """The model of `model.stages`. Only the last stage reads out classes."""
    stages: list[Any] = []
    sizes = {**needs.sizes, "classes": None}
    for number, stage_key in enumerate(jax.random.split(key, len(config.model.stages))):
        stage_config = config.stage(number)
        if number == len(config.model.stages) - 1:
            sizes["classes"] = needs.sizes.get("classes")
        with at(f"model.stages.{number}"):
            stage = _whole_model(stage_config, needs._replace(sizes=sizes), stage_key)
            if not isinstance(stage.inputs, models.ImageInputs):
                kind = config.model.kind
                raise InputError(f"model.kind={kind} is not a stage; set image_stage.")
        sizes["image_shape"] = (*stage.inputs.grid, stage.features)
        stages.append(stage)
    return models.StagedModel(tuple(stages))


def objective(loss: AbstractLoss, training: TrainingConfig) -> Callable[..., Loss]:
    """The loss with the terms that a run adds: a function of the model, batch and key."""
    costs = {
        name: read(AbstractCost, cost.description(name), f"training.costs.{short(name)}")
        for name, cost in training.costs.items()
    }
    return ft.partial(loss, costs=costs)


def with_solver(model: Model, config: SolverConfig) -> Model:
    """The model, solved as the section `solver` describes; `native` keeps its own scheme.

    **Raises:** `InputError` for a scheme that lacks learned weights of the present one.
    """
    if config.kind == NATIVE:
        return model

    def solved(part: Model) -> Model:
        # The weights of a scheme have these sizes.
        sizes = {
            "features": part.features,
            "num_steps": part.layers * config.steps,
            "operators": len(eqx.filter_eval_shape(part.control, 0.0)),
        }
        given = {diffrax.AbstractSolver: sizes}
        solver = read(diffrax.AbstractSolver, config.description, "solver", given=given)
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

    return model.each_equation(solved)


def _pretrained(path: str, checkpoint: str | int, needs: ModelNeeds) -> Model:
    """The model of a checkpoint. Raises `InputError` if it cannot learn the data."""
    if checkpoint != "newest":
        raise InputError(f"model.checkpoint: model.pretrained={path} is not a run; drop it.")
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
    needed = task.sizes.get("vocabulary", 0)
    available = getattr(model.inputs, "vocabulary", needed)
    if (classes := task.sizes.get("classes")) is not None:
        outputs = eqx.filter_eval_shape(model, task.batch(0, 1, 0).inputs)
        needed = classes
        available = outputs.shape[-1]
    if needed > available:
        raise InputError(
            f"model.pretrained={path} has {available} tokens or classes; the "
            f"data have {needed}."
        )
