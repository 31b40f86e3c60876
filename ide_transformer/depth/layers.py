"""Depth as a list of layers with step sizes of their own, of which some may be kept."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..equation import AbstractControl, PiecewiseConstant, Scaled, Tied
from ..errors import InputError
from ..models import AbstractModel


Model = TypeVar("Model", bound=AbstractModel)


def in_layers(model: Model) -> Model:
    """The same model with a step size of its own for each operator in each interval,

        u_t = Σ_i λ_{l,i} A_i(u; θ_l),   l = ⌊t⌋,   λ = 1 at first:

    its control as `PiecewiseConstant` of `Scaled` operators. Weights that are shared over
    depth become as many copies. θ_l is θ at the beginning of interval l: all of it for
    layered and tied weights, and all that a step of Euler's method sees of any other.
    """

    def block_at(t):
        return tuple(Scaled(operator, jnp.ones(())) for operator in model.control(t))

    return with_control(
        model,
        stack_intervals(block_at, model.control),
        model.constraint
        if isinstance(model.constraint, Tied)
        else stack_intervals(model.constraint, model.constraint),
    )


def stack_intervals(block_at: Callable, control: AbstractControl) -> PiecewiseConstant:
    """`block_at` evaluated at the beginning of each interval of a control."""
    starts = jnp.arange(control.num_intervals) * control.interval_length
    blocks = eqx.filter_vmap(block_at, out_axes=eqx.if_array(0))(starts)
    return PiecewiseConstant(blocks, control.interval_length)


def with_control(model: Model, control: AbstractControl, constraint: AbstractControl) -> Model:
    """The model with another control and constraint."""
    return eqx.tree_at(lambda m: (m.control, m.constraint), model, (control, constraint))


def take_operators(model: Model, layers: np.ndarray) -> Model:
    """Of a model in layers, the steps that are listed: in interval n, operator i is that of
    layer `layers[n, i]`, with its step size and its constraint. An interval that has one
    constraint for all operators has that of its last."""
    constraint = model.constraint
    if isinstance(constraint, Tied):
        kept = Tied(constraint.block, len(layers), constraint.interval_length)
    else:
        kept = _taken(constraint, layers)
    return with_control(model, _taken(model.control, layers), kept)


def _taken(control: AbstractControl, layers: np.ndarray) -> PiecewiseConstant:
    blocks: PyTree[Array] = control.blocks  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(blocks, tuple):
        kept = tuple(map(_rows, blocks, layers.T))
    else:
        kept = _rows(blocks, layers[:, -1])
    return PiecewiseConstant(kept, control.interval_length)


def _rows(blocks: PyTree[Array], layers: np.ndarray) -> PyTree[Array]:
    return jax.tree.map(lambda x: x[layers] if eqx.is_array(x) else x, blocks)


def keep_layers(model: Model, layers: Sequence[int]) -> Model:
    """The model without the layers that are not listed; the field's "layer dropping".

    **Raises:** `InputError` unless the layers are some of the model's, in order.
    """
    number = model.control.num_intervals
    if not layers or list(layers) != sorted(set(layers) & set(range(number))):
        raise InputError(
            f"keep_layers: layers={list(layers)} must be some of 0 to {number - 1}, each once "
            "and in order."
        )
    operators = model.equation.num_operators
    return take_operators(in_layers(model), np.repeat(np.array(layers)[:, None], operators, 1))
