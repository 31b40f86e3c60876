"""The operators and the control of the model that a configuration describes."""

import dataclasses
import functools as ft
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from ..equation import (
    AbstractConstraint,
    AbstractControl,
    AbstractOperator,
    AbstractPositions,
    Dropout,
    LayerDrop,
)
from .config import Config, ControlConfig, ModelConfig
from .construct import Offers, construct
from .names import find, find_function


def offers_of(model: ModelConfig, *, causal: bool) -> Offers:
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
        "positions": construct("model.positions", model.positions, AbstractPositions),
        "normalization": normalization,
        "bias": model.bias,
        "std": model.std,
        # Each operator adds its output to the state once a layer; scaled so, their sum over
        # all layers starts at the size of one (GPT-2).
        "output_std": model.std / (len(model.operators) * model.depth) ** 0.5,
        "rate": jnp.full(model.width, model.damping),
    }
    return Offers({AbstractConstraint: constraint, AbstractOperator: operator})


def make_block(
    model: ModelConfig, offers: Offers, key: PRNGKeyArray
) -> tuple[AbstractOperator, ...]:
    """The operators of one layer."""
    keys = jax.random.split(key, len(model.operators))
    operators = tuple(
        construct(f"model.operators.{i}", choice, AbstractOperator, offers._replace(key=k))
        for i, (choice, k) in enumerate(zip(model.operators, keys, strict=True))
    )
    if model.dropout:
        operators = tuple(Dropout(operator, model.dropout) for operator in operators)
    if model.layer_drop:
        operators = tuple(LayerDrop(operator, model.layer_drop) for operator in operators)
    return operators


def encoder_control(config: Config, key: PRNGKeyArray) -> AbstractControl:
    """The control of an encoder: that of the decoder without the operators that see the
    encoder, and not causal."""
    model = config.model
    kinds = [
        find(f"model.operators.{i}", choice.kind, AbstractOperator)
        for i, choice in enumerate(model.operators)
    ]
    own = tuple(
        choice
        for choice, kind in zip(model.operators, kinds, strict=True)
        if not getattr(kind, "own_domain", False)
    )
    model = model.model_copy(update={"operators": own})
    block = ft.partial(make_block, model, offers_of(model, causal=False))
    return make_control(config.control, model.depth, block, key)


def make_control(
    config: ControlConfig, depth: int, block: Callable, key: PRNGKeyArray
) -> AbstractControl:
    """A control of the configured kind.

    **Arguments:**

    - `block`: makes the operators of a layer from a key.
    """
    offers = Offers({AbstractControl: {"make_block": block, "num_intervals": depth}}, key)
    control = construct("control", config, AbstractControl, offers)
    if config.horizon is None:
        return control
    return dataclasses.replace(control, interval_length=config.horizon / depth)
