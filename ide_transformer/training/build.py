"""The task and the model of a configuration."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from ..equation import (
    AbstractConstraint,
    AbstractControl,
    AbstractOperator,
    AbstractPositions,
    Dropout,
    Free,
    NoPositions,
)
from ..errors import InputError
from ..models import AbstractModel, LanguageModel
from ..pretrained import find_pretrained, load_pretrained
from ..tasks import AbstractTask, PretrainedTokenizer
from .build_discretization import build_discretization, with_solver
from .config import Config, ControlConfig, ModelConfig
from .construct import Offers, construct
from .names import find, find_function


def build_task(config: Config) -> AbstractTask:
    """The data of a run."""
    model = config.model
    offered: dict[str, Any] = {"context": model.context, "patch": model.patch}
    if model.pretrained is not None:
        path = find_pretrained(model.pretrained)
        offered["tokenizer"] = PretrainedTokenizer.from_pretrained(path)
    return construct("data", config.data, AbstractTask, Offers({AbstractTask: offered}))


def task_class(config: Config) -> type[AbstractTask]:
    """The class of the task of a run; its data are not read."""
    return find("data.name", config.data.name, AbstractTask)


def build_model(config: Config, task: AbstractTask, key: PRNGKeyArray) -> AbstractModel:
    """The model of a run, with weights drawn from `key`."""
    return build_model_of_size(config, task.sizes, key)


def build_model_of_size(
    config: Config, sizes: Mapping[str, Any], key: PRNGKeyArray
) -> AbstractModel:
    """The model of a run, for data of these sizes.

    **Arguments:**

    - `sizes`: the `sizes` of the task, for example `{"vocabulary": 84}`.
    """
    if config.model.pretrained is not None:
        return _pretrained(config, config.model.pretrained)
    model, task = config.model, task_class(config)
    control_key, constraint_key, model_key = jax.random.split(key, 3)
    offers = _offers(model, causal=task.causal)
    make_control = _control_maker(config.control, model.depth)
    control = make_control(_block_maker(model, offers), control_key)
    one = construct("model.constraint", model.constraint, AbstractConstraint, offers)
    constrained = type(one) is not Free
    constraints = (one,) * len(model.operators)
    constraint = make_control(lambda key: constraints, constraint_key) if constrained else one

    def normalization(key: str) -> AbstractConstraint:
        return construct(f"model.{key}", getattr(model, key), AbstractConstraint, offers)

    # Where the state is constrained, the constraint is applied to the embedded input, and
    # the state at T needs no other normalisation.
    output = normalization("normalization")
    if type(output) is Free:
        layer_norm = ModelConfig().normalization
        output = construct("model.normalization", layer_norm, AbstractConstraint, offers)
    solver = build_discretization(config.solver, width=model.width, constrained=constrained)
    offered = dict(
        sizes,
        context=model.context,
        features=model.width,
        patch=model.patch,
        class_token=model.class_token,
        tied=model.tied,
        learned_positions=type(_positions(model)) is NoPositions,
        control=control,
        constraint=constraint,
        discretization=solver,
        input_normalization=one if constrained else normalization("input_normalization"),
        output_normalization=Free() if constrained else output,
        dropout=model.dropout,
        std=model.std,
    )
    try:
        return construct(
            "model", model, task.model, Offers({AbstractModel: offered}, model_key)
        )
    except InputError as error:
        raise InputError(f"data.name={config.data.name}: {error}") from None


def _pretrained(config: Config, path: str) -> LanguageModel:
    """The language model of a checkpoint, solved by the configured scheme."""
    model = load_pretrained(path)
    if not isinstance(model, LanguageModel):
        raise InputError(
            f"model.pretrained={path} holds a {type(model).__name__}; a language model is "
            "needed here."
        )
    return with_solver(model, config.solver)


def _offers(model: ModelConfig, *, causal: bool) -> Offers:
    """The arguments that the section `model` supplies to operators and constraints."""
    constraint = {
        "gain": jnp.ones(model.width),
        "bias": jnp.zeros(model.width) if model.bias else None,
        "eps": 1e-5,
    }
    constraints = Offers({AbstractConstraint: constraint})
    normalization = construct(
        "model.normalization", model.normalization, AbstractConstraint, constraints
    )
    operator = {
        "features": model.width,
        "heads": model.heads,
        "key_value_heads": model.key_value_heads,
        "hidden": model.hidden,
        "activation": find_function("model.activation", model.activation),
        "causal": causal,
        "positions": _positions(model),
        "normalization": normalization,
        "bias": model.bias,
        "std": model.std,
        # Each operator adds its output to the state once a layer; scaled so, their sum over
        # all layers starts at the size of one (GPT-2).
        "output_std": model.std / (len(model.operators) * model.depth) ** 0.5,
        "rate": jnp.full(model.width, model.damping),
    }
    return Offers({AbstractConstraint: constraint, AbstractOperator: operator})


def _positions(model: ModelConfig) -> AbstractPositions:
    return construct("model.positions", model.positions, AbstractPositions)


def _block_maker(
    model: ModelConfig, offers: Offers
) -> Callable[[PRNGKeyArray], tuple[AbstractOperator, ...]]:
    """Makes the operators of one layer from a key."""

    def block(key: PRNGKeyArray) -> tuple[AbstractOperator, ...]:
        keys = jax.random.split(key, len(model.operators))
        operators = tuple(
            construct(f"model.operators.{i}", choice, AbstractOperator, offers._replace(key=k))
            for i, (choice, k) in enumerate(zip(model.operators, keys, strict=True))
        )
        if not model.dropout:
            return operators
        return tuple(Dropout(operator, model.dropout) for operator in operators)

    return block


def _control_maker(
    config: ControlConfig, depth: int
) -> Callable[[Callable, PRNGKeyArray], AbstractControl]:
    """Makes a control of the configured kind from a maker of blocks and a key."""

    def make(make_block: Callable, key: PRNGKeyArray) -> AbstractControl:
        offered = {"make_block": make_block, "num_intervals": depth}
        offers = Offers({AbstractControl: offered}, key)
        control = construct("control", config, AbstractControl, offers)
        if config.horizon is None:
            return control
        return dataclasses.replace(control, interval_length=config.horizon / depth)

    return make
