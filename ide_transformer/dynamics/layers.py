"""Selects layers of a model."""

from collections.abc import Callable, Sequence
from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..equation import AbstractControl, PiecewiseConstant, Scaled, Tied, scale_operator
from ..errors import InputError
from ..models import Model


def keep_layers(model: Model, layers: Sequence[int]) -> Model:
    """Keeps only the listed layers of a model (layer dropping). Layers of a continuous control
    have the weights of their beginning."""
    last = model.layers - 1
    if not len(layers) or list(layers) != sorted(set(layers) & set(range(last + 1))):
        raise InputError(f"keep_layers: {layers=} must be some of 0 to {last}, increasing.")
    return take_layers(in_layers(model), whole_layers(layers, model.equation.num_operators))


def in_layers(model: Model) -> Model:
    """The model with a step size for each operator in each interval,

        u_t = Σ_i λ_{l,i} A_i(u; θ_l),   l = ⌊t⌋,   λ = 1 at first.

    Its control is a `PiecewiseConstant` of `Scaled` operators, θ_l is θ at the start of l."""
    control = stacked_intervals(
        model.control, lambda block: tuple(scale_operator(x, jnp.ones(())) for x in block)
    )
    constraint = model.constraint
    if constraint.depth_axes:
        constraint = stacked_intervals(constraint)
    return eqx.tree_at(lambda m: (m.control, m.constraint), model, (control, constraint))


def stacked_operators(model: Model) -> tuple[Scaled, ...]:
    """The operators of a model from `in_layers`; the leading axis of arrays counts layers."""
    return cast(PiecewiseConstant, model.control).blocks


def rates(model: Model) -> tuple:
    """The step sizes of each operator of a model from `in_layers`."""
    return tuple(operator.rate for operator in stacked_operators(model))


def whole_layers(layers: Sequence[int], operators: int) -> np.ndarray:
    """The argument of `take_layers` for whole layers: `[intervals, operators]`."""
    return np.repeat(np.array(layers)[:, None], operators, axis=1)


def take_layers(model: Model, layers: np.ndarray) -> Model:
    """A model from `in_layers` with only these layers, `[intervals, operators]`."""
    operators = tuple(map(_take_rows, stacked_operators(model), layers.T))
    control = PiecewiseConstant(operators, model.control.interval_length)
    constraint = model.constraint
    length = constraint.interval_length
    if constraint.depth_axes:
        blocks = cast(PiecewiseConstant, constraint).blocks
        if isinstance(blocks, tuple):
            blocks = tuple(map(_take_rows, blocks, layers.T))
        else:
            blocks = _take_rows(blocks, layers[:, -1])
        constraint = PiecewiseConstant(blocks, length)
    else:
        constraint = Tied(constraint(0.0), len(layers), length)
    return eqx.tree_at(lambda m: (m.control, m.constraint), model, (control, constraint))


def _take_rows(blocks: PyTree[Array], layers: np.ndarray) -> PyTree[Array]:
    return jax.tree.map(lambda x: x[layers] if eqx.is_array(x) else x, blocks)


def stacked_intervals(
    control: AbstractControl, change: Callable[[PyTree], PyTree] = lambda block: block
) -> PiecewiseConstant:
    """The blocks at the beginning of each interval of a control, after `change`."""
    # By interval, since a rounded depth may lie in another one.
    blocks_of = eqx.filter_vmap(
        lambda interval: change(control.local(interval, 0.0)),
        out_axes=eqx.if_array(0),
        axis_size=control.layers,
    )
    return PiecewiseConstant(blocks_of(control.intervals()), control.interval_length)
