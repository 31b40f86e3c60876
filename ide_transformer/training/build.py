"""The task, the model and the discretisation that a configuration describes."""

import dataclasses
import functools as ft
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar, get_args

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from ..equation import (
    AbstractBasis,
    AbstractConstraint,
    AbstractOperator,
    FeatureDomain,
    Free,
    FunctionSpace,
    NoPositions,
)
from ..errors import InputError
from ..integration import AbstractGradient
from ..models import (
    AbstractInputs,
    AbstractReadOut,
    Discretization,
    EncodedInputs,
    LanguageModel,
    Model,
    TextInputs,
    check_causal,
    is_built_as,
    kinds_of,
)
from ..pretrained import find_pretrained, load_pretrained
from ..tasks import AbstractTask, AbstractTokenizer, PretrainedTokenizer
from .blocks import encoder_control, make_block, make_control, offers_of
from .choice import SchemeConfig
from .config import NATIVE, Config, ModelConfig, SolverConfig, TrainingConfig
from .construct import Offers, construct
from .names import find, parameters_of, snake_case
from .refinement import first_model
from .sizes import check_memory, check_steps
from .staged import staged_model


M = TypeVar("M", bound=Model)


def build_task(config: Config, tokenizer: AbstractTokenizer | None = None) -> AbstractTask:
    """The data of a run.

    **Arguments:**

    - `tokenizer`: one that is not to be learned again, for a task that takes one.
    """
    model, data, kind = config.model, config.data, task_class(config)
    offered: dict[str, Any] = {"context": model.context, "patch": model.patch}
    if tokenizer is not None:
        asked = parameters_of(getattr(kind, "build", kind)).get("tokenizer")
        if asked is not None and AbstractTokenizer in get_args(asked.annotation):
            offered["tokenizer"] = tokenizer
            learned = type(data).model_fields["tokenizer"].default
            data = data.model_copy(update={"tokenizer": learned})
    elif model.pretrained is not None and kind.model is LanguageModel:
        path = find_pretrained(model.pretrained)
        offered["tokenizer"] = PretrainedTokenizer.from_pretrained(path)
    return construct("data", data, AbstractTask, Offers({AbstractTask: offered}))


def task_class(config: Config) -> type[AbstractTask]:
    """The class of the task of a run; its data are not read."""
    return find("data.name", config.data.name, AbstractTask)


def build_model(config: Config, task: AbstractTask, key: PRNGKeyArray) -> Model:
    """The model of a run, with weights drawn from `key`.

    **Raises:** `InputError`, before anything is drawn, for a run that does not fit into memory;
    for a model that sees the tokens that it is to predict.
    """
    check_steps(config.model.depth, config.solver)
    mode = construct("training.gradient", config.training.gradient, AbstractGradient)
    if config.model.pretrained is not None:
        model = build_model_of_size(config, task.sizes, key)
        _check_tokens(config, task, model)
        check_memory(config, task, model, mode)
        return causal(config, model)
    build = ft.partial(build_model_of_size, config, task.sizes)
    try:
        shapes = eqx.filter_eval_shape(build, key)
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError):
        # A class that looks at its numbers has to be made with numbers.
        shapes = build(key)
    check_memory(config, task, shapes, mode)
    return causal(config, build(key))


def causal(config: Config, model: M) -> M:
    """The model of a run.

    **Raises:** `InputError` where the task asks for tokens that the model sees, see
    `check_causal`.
    """
    if task_class(config).causal:
        check_causal(f"data.name={config.data.name}", model)
    return model


def _check_tokens(config: Config, task: AbstractTask, model: Model) -> None:
    """Refuses tokens that the embedding of a checkpoint has not."""
    tokens = task.sizes.get("vocabulary", 0)
    texts = isinstance(model.inputs, TextInputs | EncodedInputs)
    rows = model.inputs.vocabulary if texts else tokens
    if tokens > rows:
        raise InputError(
            f"data: there are {tokens} tokens, but model.pretrained={config.model.pretrained} "
            f"knows {rows}; take the tokenizer of the checkpoint."
        )


def build_start(config: Config) -> tuple[AbstractTask, Model, PRNGKeyArray]:
    """The task, the model and the key with which the training of a run starts."""
    task = build_task(config)
    return task, *starting_model(config, task)


def starting_model(config: Config, task: AbstractTask) -> tuple[Model, PRNGKeyArray]:
    """The model and the key with which the training of a run starts on these data."""
    model_key, key = jax.random.split(jax.random.key(config.training.seed))
    model = first_model(config, lambda config: build_model(config, task, model_key))
    return with_training(model, config.training), key


def build_model_of_size(config: Config, sizes: Mapping[str, Any], key: PRNGKeyArray) -> Model:
    """The model of a run, for a task of these `sizes`, for example `{"vocabulary": 84}`."""
    model = config.model
    if model.pretrained is not None:
        return with_solver(_pretrained(config, model.pretrained), config.solver)
    if (coefficients := model.of_coefficients) is not None:
        basis = construct("model.basis", model.basis, AbstractBasis)
        domain = FeatureDomain(model.width, model.feature_rule)
        space = FunctionSpace(basis, coefficients.width, domain)
        inner = config.model_copy(update={"model": coefficients})
        return dataclasses.replace(build_model_of_size(inner, sizes, key), space=space)
    if model.stages:
        return staged_model(config, sizes, key, build_model_of_size)
    task = task_class(config)
    control_key, constraint_key, model_key = jax.random.split(key, 3)
    offers = offers_of(model, causal=task.causal)
    controlled = ft.partial(make_control, config.control, model.depth)
    control = controlled(ft.partial(make_block, model, offers), control_key)
    one = construct("model.constraint", model.constraint, AbstractConstraint, offers)
    constrained = type(one) is not Free
    constraints = (one,) * len(model.operators)
    trained = bool(jax.tree.leaves(eqx.filter(one, eqx.is_array)))
    constraint = controlled(lambda key: constraints, constraint_key) if trained else one

    # Where the state is constrained, the constraint is applied to the embedded input, and
    # the state at T needs no other normalisation.
    given = offers.arguments[AbstractOperator]
    into, output = one, Free()
    if not constrained:
        kind = model.input_normalization
        into = construct("model.input_normalization", kind, AbstractConstraint, offers)
        output = given["normalization"]
        if type(output) is Free:
            kind = ModelConfig().normalization
            output = construct("model.normalization", kind, AbstractConstraint, offers)
    num_steps = model.depth * config.solver.steps_per_interval
    steps = SchemeSizes(model.width, num_steps, len(model.operators))
    offered = dict(
        sizes,
        context=model.context,
        features=model.width,
        patch=model.patch,
        class_token=model.class_token,
        tied=model.tied,
        learned_positions=type(given["positions"]) is NoPositions,
        control=control,
        constraint=constraint,
        make_encoder_control=ft.partial(encoder_control, config, jax.random.fold_in(key, 1)),
        discretization=build_discretization(config.solver, steps),
        input_normalization=into,
        embedding_normalization=given["normalization"],
        output_normalization=output,
        dropout=model.dropout,
        std=model.std,
    )
    check_kind(config)
    roots = Model, AbstractInputs, AbstractReadOut
    try:
        offers = Offers(dict.fromkeys(roots, offered), model_key)
        return construct("model", model, Model, offers)
    except InputError as error:
        raise InputError(f"data.name={config.data.name}: {error}") from None


def check_kind(config: Config) -> None:
    """Refuses a `model.kind` that builds other models than those which learn the data."""
    kind, learns = config.model.kind, task_class(config).model
    wanted, found = kinds_of(learns), kinds_of(find("model.kind", kind, Model))
    pairs = zip(found, wanted, strict=True)
    if not all(issubclass(one, other) or issubclass(other, one) for one, other in pairs):
        raise InputError(
            f"model.kind={kind}: it builds models of {found[0].__name__} and "
            f"{found[1].__name__}, and data.name={config.data.name} is learned by those of "
            f"{wanted[0].__name__} and {wanted[1].__name__}; write model.kind="
            f"{snake_case(learns.__name__)}, or model for parts of your own."
        )


class SchemeSizes(NamedTuple):
    """Sizes of the weights of a scheme: the width of the state, the steps of a solve, and the
    number of operators."""

    features: int
    num_steps: int
    operators: int

    @classmethod
    def of(cls, model: Model, steps_per_interval: int) -> "SchemeSizes":
        """Sizes of a model that is solved with so many steps in each interval."""
        steps = model.control.num_intervals * steps_per_interval
        block = eqx.filter_eval_shape(model.control, 0.0)
        return cls(model.features, steps, len(block))


def build_solver(key: str, config: SchemeConfig, sizes: SchemeSizes) -> diffrax.AbstractSolver:
    """The scheme that a configuration describes at `key`."""
    offers = Offers({diffrax.AbstractSolver: sizes._asdict()})
    return construct(key, config, diffrax.AbstractSolver, offers)


def build_discretization(config: SolverConfig, sizes: SchemeSizes) -> Discretization:
    """The time-stepping scheme of a model."""
    solver = build_solver("solver", config, sizes)
    if config.rtol is None or config.atol is None:
        return Discretization(solver, steps_per_interval=config.steps_per_interval)
    rounding = float(jnp.finfo(jnp.result_type(float)).eps) / 2
    if max(config.rtol, config.atol) < rounding:
        raise InputError(
            f"solver.rtol={config.rtol} and solver.atol={config.atol} are both below rounding, "
            f"{rounding:.1e}; no step would meet them. Raise one."
        )
    controller = diffrax.PIDController(rtol=config.rtol, atol=config.atol)
    return Discretization(
        solver,
        stepsize_controller=controller,
        max_steps=config.max_steps,
        steps_for=config.steps_for,
    )


def with_training(model: Model, config: TrainingConfig) -> Model:
    """Give a model the configured gradient mode and precision of its products."""
    gradient = construct("training.gradient", config.gradient, AbstractGradient)
    dtype = None if config.compute_dtype == "float32" else config.compute_dtype
    return model.with_options(gradient=gradient, compute_dtype=dtype)


def with_solver(model: M, config: SolverConfig) -> M:
    """Solve a model by the configured scheme; `native` is the one it has."""
    if config.kind == NATIVE:
        return model

    def change(model: Model) -> Model:
        check_steps(model.control.num_intervals, config)
        sizes = SchemeSizes.of(model, config.steps_per_interval)
        discretization = build_discretization(config, sizes)
        return eqx.tree_at(lambda m: m.discretization, model, discretization)

    changed: Any = model.each_equation(change)
    return changed


def _pretrained(config: Config, path: str) -> Model:
    """The model of a checkpoint, of the kind that learns the data."""
    model, wanted = load_pretrained(path), task_class(config).model
    if not is_built_as(model, wanted):
        raise InputError(
            f"model.pretrained={path} holds a model of {type(model.inputs).__name__} and "
            f"{type(model.read_out).__name__}; a {wanted.__name__} is needed here, for "
            f"data.name={config.data.name}. For a model of images choose data of images, such "
            "as data.name=digits."
        )
    return model
