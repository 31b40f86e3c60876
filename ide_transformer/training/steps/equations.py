"""Builds the equations that a configuration describes. Needs no data."""

import dataclasses
import functools as ft
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from ... import models
from ...equation import (
    AbstractConstraint,
    AbstractControl,
    AbstractOperator,
    Dropout,
    Free,
    NoPositions,
    TokenDomain,
)
from ...errors import ConfigError, InputError
from ...integration import Mesh
from ...integration.mesh import check_steps
from ...models import Model
from ..configuration.config import EquationConfig
from ..configuration.model import NATIVE, ModelConfig, SolverConfig
from ..configuration.reader import Offers


def build_parts(
    equation: EquationConfig, causal: bool, keys: Sequence[PRNGKeyArray] | PRNGKeyArray
) -> dict[str, Any]:
    """The arguments of a model that do not depend on its data, with weights drawn from the
    first key, and those of the constraint from the second."""
    model = equation.model
    offers = offers_of(model, causal=causal)
    build_control = ft.partial(_build_control, equation)
    control = build_control(ft.partial(_build_block, model, offers), keys[0])
    set_of_states = model.constraint.make(offers)
    constraint = set_of_states
    if jax.tree.leaves(eqx.filter(set_of_states, eqx.is_array)):
        # It is trained: one for each operator and layer.
        each = (set_of_states,) * len(model.operators)
        constraint = build_control(lambda key: each, keys[1])
    normalization = offers[AbstractOperator]["normalization"]
    # A constraint also projects the embedded input, and the state at T then needs no other
    # normalisation.
    input_normalization = set_of_states
    output_normalization = Free()
    if type(set_of_states) is Free:
        input_normalization = model.input_normalization.make(offers)
        output_normalization = normalization
        if type(normalization) is Free:
            output_normalization = ModelConfig().normalization.make(offers)
    return {
        "features": model.features,
        "context": model.context,
        "patch": model.patch,
        "class_token": model.class_token,
        "tied": model.tied,
        "dropout": model.dropout,
        "std": model.std,
        "learned_positions": type(offers[AbstractOperator]["positions"]) is NoPositions,
        "control": control,
        "constraint": constraint,
        "input_normalization": input_normalization,
        "embedding_normalization": normalization,
        "output_normalization": output_normalization,
    }


def offers_of(model: ModelConfig, *, causal: bool) -> Offers:
    """The arguments that the section `model` gives to operators and constraints."""
    features = model.features
    bias = jnp.zeros(features) if model.bias else None
    constraint = {"gain": jnp.ones(features), "bias": bias, "eps": 1e-5}
    operator = {
        "features": features,
        "heads": model.heads,
        "key_value_heads": model.key_value_heads,
        "hidden": model.hidden_features,
        "bias": model.bias,
        "std": model.std,
        "activation": model.activation.part,
        "causal": causal,
        "positions": model.positions.make(),
        "normalization": model.normalization.make({AbstractConstraint: constraint}),
        # Each operator adds its output to the state once a layer. This scale keeps the sum
        # over all layers at the size of one output (GPT-2).
        "output_std": model.std / (len(model.operators) * model.layers) ** 0.5,
        "rate": jnp.full(features, model.damping),
    }
    return {AbstractConstraint: constraint, AbstractOperator: operator}


def _build_block(
    model: ModelConfig, offers: Offers, key: PRNGKeyArray
) -> tuple[AbstractOperator, ...]:
    """The operators of one layer."""
    keys = jax.random.split(key, len(model.operators))
    operators = tuple(
        operator.make(offers, draws=key)
        for operator, key in zip(model.operators, keys, strict=True)
    )
    if not model.dropout:
        return operators
    return tuple(Dropout(operator, model.dropout) for operator in operators)


def _build_control(
    equation: EquationConfig, make_block: Callable, key: PRNGKeyArray
) -> AbstractControl:
    """The control of an equation. `make_block` makes a layer from a key."""
    section = equation.control
    layers = equation.model.layers
    offers = {AbstractControl: {"make_block": make_block, "layers": layers}}
    control = section.spec.make(offers, draws=key)
    if section.horizon is None:
        return control
    return dataclasses.replace(control, interval_length=section.horizon / layers)


class _UnreadInputs(models.AbstractInputs):
    """The inputs of a model whose data are not read yet."""

    width: int

    @property
    def features(self) -> int:
        return self.width

    @property
    def domain(self) -> TokenDomain:
        return TokenDomain.uniform(1)

    def embed(self, inputs: Any, *, key: PRNGKeyArray | None = None) -> NoReturn:
        raise InputError("The data of this model are not read yet.")


def build_without_data(
    equation: EquationConfig, causal: bool, key: PRNGKeyArray, layers: int | None = None
) -> Model:
    """A model of one equation without inputs and read-out, to check before any data are read
    that its parts fit together; for `layers` see `build_model`."""
    equation = equation if layers is None else equation.on_layers(layers)
    parts = build_parts(equation, causal, jax.random.split(key))
    inputs = _UnreadInputs(equation.model.features)
    model = Model(inputs, parts["control"], parts["constraint"], read_out=models.States())
    return with_solver(model, equation.solver)


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
        solver = config.spec.make({diffrax.AbstractSolver: sizes})
        if jax.tree.leaves(eqx.filter(part.solver, eqx.is_inexact_array)):
            raise ConfigError(
                f"{config.key / 'kind'}={config.kind}: the scheme of this model, "
                f"{type(part.solver).__name__}, has learned weights, which another one would "
                "lose. Change its steps alone, by --mesh steps=2."
            )
        if config.rtol is None or config.atol is None:
            check_steps({"model.layers": part.layers, "solver.steps": config.steps})
            mesh = Mesh(steps=config.steps)
        else:
            mesh = Mesh(
                rtol=config.rtol,
                atol=config.atol,
                max_steps=config.max_steps,
                steps_for=config.steps_for,
            )
        return dataclasses.replace(part, solver=solver, mesh=mesh)

    return model.each_equation(change_solver)
