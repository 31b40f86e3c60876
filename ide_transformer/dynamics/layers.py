"""Depth as a list of layers, each with step sizes of its own: some are kept, lengthened or
merged, so that a model becomes one interval coarser."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..equation import AbstractControl, PiecewiseConstant, Scaled, Tied, scaled
from ..errors import InputError
from ..models import Model


# Choices of whole layers: more are not worth trying; up to eight layers have fewer.
MOST_SELECTIONS = 100


def keep_layers(model: Model, layers: Sequence[int]) -> Model:
    """The model with the listed layers only; the field says "layer dropping". Of a continuous
    control a layer has the weights of its beginning."""
    number = model.layers
    if not len(layers) or list(layers) != sorted(set(layers) & set(range(number))):
        raise InputError(
            f"keep_layers: layers={list(layers)} must be some of 0 to {number - 1}, each once "
            "and in order."
        )
    return _take(in_layers(model), _whole(layers, model.equation.num_operators))


def in_layers(model: Model) -> Model:
    """Give each operator in each interval a step size of its own,

        u_t = Σ_i λ_{l,i} A_i(u; θ_l),   l = ⌊t⌋,   λ = 1 at first:

    its control as `PiecewiseConstant` of `Scaled` operators, θ_l that of the beginning of
    interval l. An operator that reads depth itself reads that of its place."""
    control = stacked_intervals(
        model.control, lambda block: tuple(scaled(x, jnp.ones(())) for x in block)
    )
    constraint = model.constraint
    if constraint.depth_axes:
        constraint = stacked_intervals(constraint)
    return eqx.tree_at(lambda m: (m.control, m.constraint), model, (control, constraint))


def stacked_operators(model: Model) -> tuple[Scaled, ...]:
    """The operators of a model in layers; the leading axis of their arrays counts layers."""
    return cast(PiecewiseConstant, model.control).blocks


def rates(model: Model) -> tuple:
    """The step sizes of each operator of a model in layers."""
    return tuple(operator.rate for operator in stacked_operators(model))


class Layered(NamedTuple):
    """A model in layers, and the native layers that each of its steps is made of.

    - `steps`: `[intervals, operators]`, texts: `"3"` for layer 3, `"3+4"` for a mean of two.
    - `native`: the native model, in layers.
    """

    model: Model
    steps: np.ndarray
    native: Model

    def take(self, layers: np.ndarray) -> "Layered":
        """In interval n operator i of layer `layers[n, i]`."""
        steps = np.take_along_axis(self.steps, layers, axis=0)
        return self._replace(model=_take(self.model, layers), steps=steps)

    def without(self, window: Sequence[int]) -> "Layered":
        """Operator i without its layer `window[i]`."""
        every = np.arange(len(self.steps))
        return self.take(np.stack([np.delete(every, layer) for layer in window], axis=1))


def native_layers(model: Model) -> Layered:
    """One step for each interval."""
    layers = in_layers(model)
    steps = _whole(range(model.layers), model.equation.num_operators)
    return Layered(layers, steps.astype(str).astype(object), layers)


def selections(layered: Layered) -> Iterator[Layered]:
    """Every choice of whole native layers with one interval less, unchanged; none where there
    are too many choices to try each."""
    intervals, operators = layered.steps.shape
    number = layered.native.control.layers
    if math.comb(number, intervals - 1) > MOST_SELECTIONS:
        return
    for kept in itertools.combinations(range(number), intervals - 1):
        layers = _whole(kept, operators)
        steps = layers.astype(str).astype(object)
        yield layered._replace(model=_take(layered.native, layers), steps=steps)


def drops(layered: Layered) -> Iterator[Layered]:
    """Leave out neighbouring operators, one of each kind.

    The steps of a splitting are one sequence, A_1 B_1 A_2 B_2 …. Leaving out a whole layer
    (A_2 B_2) is one choice; leaving out B_1 A_2, so that A_1 and B_2 form a layer, is another.
    Both save one evaluation of every operator, and every subsequence that alternates is
    reached by a succession of them.
    """
    return map(layered.without, _windows(layered))


def extensions(layered: Layered) -> Iterator[Layered]:
    """Leave out neighbouring operators as `drops` does, but the operator before the one left
    out (at the beginning, the one after it) takes the sum of their step sizes: one step of
    Euler's method over both."""
    for window in _windows(layered):
        model = layered.model
        for operator, layer in enumerate(window):
            model = _add_rate(model, operator, layer - 1 if layer else 1, layer)
        yield layered._replace(model=model).without(window)


def mergers(layered: Layered) -> Iterator[Layered]:
    """One step for two neighbouring ones, with the mean of their weights over depth and
    the sum of their step sizes. It ends on the constraint of the second."""
    intervals, operators = layered.steps.shape
    for layer in range(intervals - 1):
        model = layered.model
        steps = layered.steps.copy()
        for operator in range(operators):
            model = _add_rate(_average(model, operator, layer), operator, layer + 1, layer)
        steps[layer + 1] = [f"{a}+{b}" for a, b in zip(*steps[layer : layer + 2], strict=True)]
        yield layered._replace(model=model, steps=steps).without([layer] * operators)


MOVES = (selections, drops, extensions, mergers)


def _windows(layered: Layered) -> Iterator[list[int]]:
    """The layer from which each operator is left out."""
    intervals, operators = layered.steps.shape
    for first in range((intervals - 1) * operators + 1):
        layer, gone = divmod(first, operators)
        # Where a window begins inside a layer, its first operators are those of the next.
        yield [layer + (operator < gone) for operator in range(operators)]


def _whole(layers: Sequence[int], operators: int) -> np.ndarray:
    """`[intervals, operators]`: all operators of the same layers."""
    return np.repeat(np.array(layers)[:, None], operators, axis=1)


def _take(model: Model, layers: np.ndarray) -> Model:
    """A model in layers with the listed steps only, each with its constraint."""
    operators = tuple(map(_rows, stacked_operators(model), layers.T))
    control = PiecewiseConstant(operators, model.control.interval_length)
    constraint = model.constraint
    length = constraint.interval_length
    if constraint.depth_axes:
        blocks = cast(PiecewiseConstant, constraint).blocks
        each = isinstance(blocks, tuple)
        rows = tuple(map(_rows, blocks, layers.T)) if each else _rows(blocks, layers[:, -1])
        constraint = PiecewiseConstant(rows, length)
    else:
        constraint = Tied(constraint(0.0), len(layers), length)
    return eqx.tree_at(lambda m: (m.control, m.constraint), model, (control, constraint))


def _rows(blocks: PyTree[Array], layers: np.ndarray) -> PyTree[Array]:
    return jax.tree.map(lambda x: x[layers] if eqx.is_array(x) else x, blocks)


def stacked_intervals(
    control: AbstractControl, change: Callable[[PyTree], PyTree] = lambda block: block
) -> PiecewiseConstant:
    """The blocks at the beginning of each interval of a control, changed in that way."""
    # By number, as the march takes them: a depth that is rounded may lie in another interval.
    each = eqx.filter_vmap(
        lambda interval: change(control.local(interval, 0.0)),
        out_axes=eqx.if_array(0),
        axis_size=control.layers,
    )
    return PiecewiseConstant(each(control.intervals()), control.interval_length)


def _add_rate(model: Model, operator: int, to: int, layer: int) -> Model:
    return eqx.tree_at(
        lambda m: stacked_operators(m)[operator].rate,
        model,
        replace_fn=lambda rate: rate.at[to].add(rate[layer]),
    )


def _average(model: Model, operator: int, layer: int) -> Model:
    """Put the mean of the weights of two layers, weighted by step size, into the second."""
    rate = jnp.abs(stacked_operators(model)[operator].rate[layer : layer + 2])
    first, second = jnp.mean(rate.reshape(2, -1), axis=1)
    share = jnp.where(first + second > 0, first / (first + second), 0.5)

    def average(x):
        if not eqx.is_inexact_array(x):
            return x
        mean = share * x[layer] + (1 - share) * x[layer + 1]
        return x.at[layer + 1].set(mean.astype(x.dtype))

    return eqx.tree_at(
        lambda m: stacked_operators(m)[operator].operator,
        model,
        replace_fn=lambda x: jax.tree.map(average, x),
    )
