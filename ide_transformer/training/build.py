"""The task, the model and the discretisation that a configuration describes."""

import dataclasses
import functools as ft
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from .. import equation, models, solvers
from ..equation import AbstractConstraint, AbstractControl, AbstractOperator, Free
from ..errors import InputError, at
from ..integration import AbstractGradient, Truncated
from ..models import Discretization, Mesh, Model, check_causal, is_built_as, kinds_of
from ..models.mesh import check_steps
from ..pretrained import find_pretrained, load_pretrained
from ..tasks import AbstractTask, AbstractTokenizer, PretrainedTokenizer, load_tokenizer
from .choice import Part, SchemeConfig
from .config import NATIVE, Config, ModelConfig, SolverConfig, TrainingConfig, refinements
from .construct import Offers, construct
from .names import find, find_function, parameters_of, snake_case
from .sizes import check_memory


M = TypeVar("M", bound=Model)


def build_task(config: Config, tokenizer: AbstractTokenizer | None = None) -> AbstractTask:
    """The data of a run.

    **Arguments:**

    - `tokenizer`: one that is not to be learned again, for a task that takes one; by default
      that of the run or checkpoint `model.pretrained`.
    """
    model, data, kind = config.model, config.data, task_class(config)
    offered: dict[str, Any] = {"context": model.context, "patch": model.side_of_token}
    if tokenizer is None and model.run is not None:
        file = Path(model.run, "tokenizer.json")
        tokenizer = load_tokenizer(file) if file.is_file() else None
    if tokenizer is not None:
        asked = parameters_of(kind).get("tokenizer")
        if asked is not None and AbstractTokenizer in get_args(asked.annotation):
            offered["tokenizer"] = tokenizer
            learned = type(data).model_fields["tokenizer"].default
            data = data.model_copy(update={"tokenizer": learned})
    elif model.pretrained is not None and kind.model is models.LanguageModel:
        path = find_pretrained(model.pretrained)
        offered["tokenizer"] = PretrainedTokenizer.from_pretrained(path)
    return construct("data", data, AbstractTask, {AbstractTask: offered})


def task_class(config: Config) -> type[AbstractTask]:
    """The class of the task of a run; its data are not read."""
    return find("data.name", config.data.name, AbstractTask)


def build_model(config: Config, task: AbstractTask, key: PRNGKeyArray) -> Model:
    """The model of a run, with weights drawn from `key`.

    **Raises:** `InputError`, before anything is drawn, for a run that does not fit into memory;
    for a model that sees the tokens that it is to predict.
    """
    mode = construct("training.gradient", config.training.gradient, AbstractGradient)
    depths = [stage.depth or config.model.depth for stage in config.model.stages[1:]]
    if isinstance(mode, Truncated) and mode.intervals < max(depths, default=0):
        raise InputError(
            f"training.gradient=truncated: a gradient of the last {mode.intervals} of "
            f"{max(depths)} intervals does not come to the stages before, which would not "
            f"learn; write options: {{intervals: {max(depths)}}}, or another mode."
        )
    build = ft.partial(build_model_of_size, config, task.sizes)
    given = config.model.pretrained is not None
    if not given and not config.model.stages:
        check_kind(config, task.model)
    try:
        model = build(key) if given else eqx.filter_eval_shape(build, key)
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError):
        # A class that looks at its numbers has to be made with numbers.
        model = build(key)
    if given:
        _check_tokens(config, task, model)
    check_memory(config, task, model, mode)
    return causal(config, model if given else build(key))


def first_model(config: Config, build: Callable[[Config], Model]) -> Model:
    """The model with which a run begins, on the first mesh of `training.refine`. Layers are
    drawn for that mesh, since the mean of several draws would be small."""
    model = build(config)
    if not config.training.refine:
        return model
    first, *_ = config.training.refine.values()
    depth = first.intervals or config.model.depth
    coarse = with_intervals(config, model, depth)
    if weight_shapes(coarse) == weight_shapes(model):
        return coarse
    return build(config.on_fewer_layers(depth))


def with_intervals(config: Config, model: Model, intervals: int) -> Model:
    """The model on a mesh of `training.refine`."""
    with at(f"training.refine={refinements(config.training.refine)}"):
        return model.on(Mesh(intervals=intervals))


def weight_shapes(model: Model) -> list[tuple[int, ...]]:
    return [x.shape for x in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))]


def causal(config: Config, model: M) -> M:
    """The model of a run; an `InputError` where it sees tokens that its task forbids."""
    if is_causal(config):
        check_causal(f"data.name={config.data.name}", model)
    return model


def is_causal(config: Config) -> bool:
    """Whether a token may see only those before it: as the task says, or its option."""
    return bool(config.data.options.get("causal", task_class(config).causal))


def build_model_of_size(config: Config, sizes: Mapping[str, Any], key: PRNGKeyArray) -> Model:
    """The model of a run, for a task of these `sizes`, for example `{"vocabulary": 84}`."""
    model = config.model
    if model.pretrained is not None:
        return with_solver(_pretrained(config, model.pretrained), config.solver)
    if (coefficients := model.of_coefficients) is not None:
        basis = construct("model.basis", model.basis, equation.AbstractBasis)
        domain = equation.FeatureDomain(model.width, model.feature_rule)
        space = equation.FunctionSpace(basis, coefficients.width, domain)
        inner = config.model_copy(update={"model": coefficients})
        return dataclasses.replace(build_model_of_size(inner, sizes, key), space=space)
    if model.stages:
        return _staged_model(config, sizes, key)
    control_key, constraint_key, model_key = jax.random.split(key, 3)
    parts = offers_of(model, causal=is_causal(config))
    control = _control(config, ft.partial(make_block, model, parts), control_key)
    one = _constraint("constraint", model.constraint, parts)
    trained = bool(jax.tree.leaves(eqx.filter(one, eqx.is_array)))
    ones = (one,) * len(model.operators)
    constraint = _control(config, lambda key: ones, constraint_key) if trained else one

    # Where the state is constrained, the constraint is applied to the embedded input, and
    # the state at T needs no other normalisation.
    given = parts[AbstractOperator]
    into, output = one, Free()
    if type(one) is Free:
        into = _constraint("input_normalization", model.input_normalization, parts)
        output = given["normalization"]
        if type(output) is Free:
            output = _constraint("normalization", ModelConfig().normalization, parts)
    asked = ("context", "patch", "class_token", "tied", "dropout", "std")
    offered = {
        **sizes,
        **{name: getattr(model, name) for name in asked},
        "features": model.width,
        "learned_positions": type(given["positions"]) is equation.NoPositions,
        "control": control,
        "constraint": constraint,
        "make_encoder_control": ft.partial(_encoder_control, config, key),
        "discretization": Discretization(solvers.LieTrotter()),  # exchanged below
        "input_normalization": into,
        "embedding_normalization": given["normalization"],
        "output_normalization": output,
    }
    check_kind(config, task_class(config).model)
    offers = dict.fromkeys((Model, models.AbstractInputs, models.AbstractReadOut), offered)
    with at(f"data.name={config.data.name}"):
        built = construct("model", model, Model, offers, model_key)
    return with_solver(built, config.solver)


def check_kind(config: Config, learns: Callable[..., Model]) -> None:
    """Refuses a `model.kind` that builds other models than `learns`, those of the data."""
    kind = config.model.kind
    wanted, found = kinds_of(learns), kinds_of(find("model.kind", kind, Model))
    pairs = zip(found, wanted, strict=True)
    if not all(issubclass(one, other) or issubclass(other, one) for one, other in pairs):
        raise InputError(
            f"model.kind={kind}: data.name={config.data.name} is learned by models of "
            f"{wanted[0].__name__} and {wanted[1].__name__}; write model.kind="
            f"{snake_case(learns.__name__)}, or model for parts of your own."
        )


def offers_of(model: ModelConfig, *, causal: bool) -> Offers:
    """The arguments that the section `model` supplies to operators and constraints."""
    constraint = {
        "gain": jnp.ones(model.width),
        "bias": jnp.zeros(model.width) if model.bias else None,
        "eps": 1e-5,
    }
    constraints = {AbstractConstraint: constraint}
    asked = ("heads", "key_value_heads", "hidden", "bias", "std")
    operator = {
        **{name: getattr(model, name) for name in asked},
        "features": model.width,
        "activation": find_function("model.activation", model.activation),
        "causal": causal,
        "positions": construct("model.positions", model.positions, equation.AbstractPositions),
        "normalization": _constraint("normalization", model.normalization, constraints),
        # Each operator adds its output to the state once a layer; scaled so, their sum over
        # all layers starts at the size of one (GPT-2).
        "output_std": model.std / (len(model.operators) * model.depth) ** 0.5,
        "rate": jnp.full(model.width, model.damping),
    }
    return {AbstractConstraint: constraint, AbstractOperator: operator}


def _constraint(name: str, choice: Part, offers: Offers) -> AbstractConstraint:
    return construct(f"model.{name}", choice, AbstractConstraint, offers)


def make_block(
    model: ModelConfig, offers: Offers, key: PRNGKeyArray
) -> tuple[AbstractOperator, ...]:
    """The operators of one layer."""
    keys = jax.random.split(key, len(model.operators))
    operators = tuple(
        construct(f"model.operators.{i}", choice, AbstractOperator, offers, keys[i])
        for i, choice in enumerate(model.operators)
    )
    for kind, rate in (
        (equation.Dropout, model.dropout),
        (equation.LayerDrop, model.layer_drop),
    ):
        if rate:
            operators = tuple(kind(operator, rate) for operator in operators)
    return operators


def _control(config: Config, block: Callable, key: PRNGKeyArray) -> AbstractControl:
    """A control of the configured kind, of layers that `block` makes from a key."""
    depth, horizon = config.model.depth, config.control.horizon
    offers = {AbstractControl: {"make_block": block, "num_intervals": depth}}
    control = construct("control", config.control, AbstractControl, offers, key)
    if horizon is None:
        return control
    return dataclasses.replace(control, interval_length=horizon / depth)


def _encoder_control(config: Config, key: PRNGKeyArray) -> AbstractControl:
    """The control of an encoder: the operators that do not see it, and not causal."""
    kinds = [find("model.operators", x.kind, AbstractOperator) for x in config.model.operators]
    pairs = zip(config.model.operators, kinds, strict=True)
    own = tuple(choice for choice, kind in pairs if not getattr(kind, "own_domain", False))
    model = config.model.model_copy(update={"operators": own})
    block = ft.partial(make_block, model, offers_of(model, causal=False))
    return _control(config, block, jax.random.fold_in(key, 1))


def _staged_model(config: Config, sizes: Mapping[str, Any], key: PRNGKeyArray) -> Model:
    """The model of `model.stages`, of which the last one alone reads classes out."""
    stages: list[Any] = []
    keys, given = jax.random.split(key, len(config.model.stages)), {**sizes, "classes": None}
    for number, own_key in enumerate(keys):
        own = config.stage(number)
        if number == len(keys) - 1:
            given["classes"] = sizes.get("classes")
        with at(f"model.stages.{number}"):
            stage = build_model_of_size(own, given, own_key)
            if not isinstance(stage.inputs, models.ImageInputs):
                raise InputError(
                    f"model.kind={own.model.kind}: it cannot be followed by another stage; "
                    "take model.kind=image_stage."
                )
        given["image_shape"] = (*stage.inputs.grid, stage.features)
        stages.append(stage)
    return models.StagedModel(tuple(stages))


def build_solver(key: str, config: SchemeConfig, **sizes: int) -> diffrax.AbstractSolver:
    """The scheme that a configuration describes at `key`. Its weights have `sizes`: the width
    `features` of the state, `num_steps` of a solve, and the number of `operators`."""
    return construct(key, config, diffrax.AbstractSolver, {diffrax.AbstractSolver: sizes})


def solver_of(
    key: str, config: SchemeConfig, model: Model, steps_per_interval: int
) -> diffrax.AbstractSolver:
    """The scheme that a configuration describes at `key`, for a model."""
    return build_solver(
        key,
        config,
        features=model.features,
        num_steps=model.control.num_intervals * steps_per_interval,
        operators=len(eqx.filter_eval_shape(model.control, 0.0)),
    )


def _discretization(config: SolverConfig, model: Model) -> Discretization:
    solver = solver_of("solver", config, model, config.steps_per_interval)
    if config.rtol is None or config.atol is None:
        return Discretization(solver, steps_per_interval=config.steps_per_interval)
    rounding = float(jnp.finfo(jnp.result_type(float)).eps) / 2
    if max(config.rtol, config.atol) < rounding:
        raise InputError(
            f"solver.rtol={config.rtol} and solver.atol={config.atol} are both below rounding, "
            f"{rounding:.1e}; no step would meet them. Raise one."
        )
    return Discretization(
        solver,
        stepsize_controller=diffrax.PIDController(rtol=config.rtol, atol=config.atol),
        max_steps=config.max_steps,
        steps_for=config.steps_for,
    )


def with_training(model: Model, config: TrainingConfig) -> Model:
    """Give a model the configured gradient mode and precision of its products."""
    gradient = construct("training.gradient", config.gradient, AbstractGradient)
    return model.with_options(gradient=gradient, compute_dtype=config.precision)


def with_solver(model: M, config: SolverConfig) -> M:
    """Solve a model by the configured scheme; `native` is the one it has."""
    if config.kind == NATIVE:
        return model

    def change(model: Model) -> Model:
        numbers = {
            "model.depth": model.control.num_intervals,
            "solver.steps_per_interval": config.steps_per_interval,
        }
        check_steps(numbers)
        return eqx.tree_at(lambda m: m.discretization, model, _discretization(config, model))

    changed: Any = model.each_equation(change)
    return changed


def _pretrained(config: Config, path: str) -> Model:
    """The model of a checkpoint, of the kind that learns the data."""
    model, wanted = load_pretrained(path), task_class(config).model
    if not is_built_as(model, wanted):
        raise InputError(
            f"model.pretrained={path} holds a model of {type(model.inputs).__name__} and "
            f"{type(model.read_out).__name__}; data.name={config.data.name} needs a "
            f"{wanted.__name__}. For a model of images take those, such as data.name=digits."
        )
    return model


def _check_tokens(config: Config, task: AbstractTask, model: Model) -> None:
    """Refuses tokens and classes that a checkpoint has not."""
    tokens = task.sizes.get("vocabulary", 0)
    texts = isinstance(model.inputs, models.TextInputs | models.EncodedInputs)
    rows = model.inputs.vocabulary if texts else tokens
    if tokens > rows:
        raise InputError(
            f"data: there are {tokens} tokens, but model.pretrained={config.model.pretrained} "
            f"knows {rows}; take the tokenizer of the checkpoint."
        )
    if (classes := task.sizes.get("classes")) is not None:
        outputs = eqx.filter_eval_shape(model, task.batch(0, 1, 0).inputs)
        if outputs.shape[-1] < classes:
            raise InputError(
                f"data: there are {classes} classes, but model.pretrained="
                f"{config.model.pretrained} has {outputs.shape[-1]}; take data of its classes."
            )
