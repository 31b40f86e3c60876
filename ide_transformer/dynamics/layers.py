"""Depth as a list of layers, each with step sizes of its own. Some of them may be kept."""

from collections.abc import Callable, Sequence
from typing import TypeVar, cast

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
    """Give each operator in each interval a step size of its own,

        u_t = Σ_i λ_{l,i} A_i(u; θ_l),   l = ⌊t⌋,   λ = 1 at first:

    its control as `PiecewiseConstant` of `Scaled` operators. Weights that are shared over
    depth become as many copies. θ_l is θ at the beginning of interval l: all of it for
    layered and tied weights, and for any other all that a step of Euler's method sees.
    """

    def scaled(block):
        return tuple(Scaled(operator, jnp.ones(())) for operator in block)

    constraint = model.constraint
    if constraint.depth_axes:
        constraint = _stack_intervals(constraint)
    return _with_control(model, _stack_intervals(model.control, scaled), constraint)


def stacked_operators(model: AbstractModel) -> tuple[Scaled, ...]:
    """The operators of a model in layers; the leading axis of their arrays counts layers."""
    return cast(PiecewiseConstant, model.control).blocks


def take_operators(model: Model, layers: np.ndarray) -> Model:
    """A model in layers with the listed steps only: in interval n, operator i is that of layer
    `layers[n, i]`, with its step size and its constraint. An interval with one constraint for
    all operators takes that of its last."""
    operators = tuple(map(_rows, stacked_operators(model), layers.T))
    control = PiecewiseConstant(operators, model.control.interval_length)
    constraint = model.constraint
    length = constraint.interval_length
    if not constraint.depth_axes:
        kept = Tied(constraint(0.0), len(layers), length)
    else:
        blocks = cast(PiecewiseConstant, constraint).blocks
        each = isinstance(blocks, tuple)
        rows = tuple(map(_rows, blocks, layers.T)) if each else _rows(blocks, layers[:, -1])
        kept = PiecewiseConstant(rows, length)
    return _with_control(model, control, kept)


def keep_layers(model: Model, layers: Sequence[int]) -> Model:
    """The model with the listed layers only; the field says "layer dropping".

    **Raises:** `InputError` unless the layers are some of the model's, in order.
    """
    number = model.control.num_intervals
    if not len(layers) or list(layers) != sorted(set(layers) & set(range(number))):
        raise InputError(
            f"keep_layers: layers={list(layers)} must be some of 0 to {number - 1}, each once "
            "and in order."
        )
    operators = model.equation.num_operators
    return take_operators(in_layers(model), np.repeat(np.array(layers)[:, None], operators, 1))


def _stack_intervals(
    control: AbstractControl, change: Callable[[PyTree], PyTree] = lambda block: block
) -> PiecewiseConstant:
    """The blocks at the beginning of each interval of a control, changed in that way."""

    # By number, as the march takes them: a depth that is rounded may lie in another interval.
    def block_of(interval):
        return change(control.local(interval, 0.0))

    each = eqx.filter_vmap(block_of, out_axes=eqx.if_array(0), axis_size=control.num_intervals)
    return PiecewiseConstant(each(control.intervals()), control.interval_length)


def _with_control(model: Model, control: AbstractControl, constraint: AbstractControl) -> Model:
    return eqx.tree_at(lambda m: (m.control, m.constraint), model, (control, constraint))


def _rows(blocks: PyTree[Array], layers: np.ndarray) -> PyTree[Array]:
    return jax.tree.map(lambda x: x[layers] if eqx.is_array(x) else x, blocks)
