"""Moves that make a model one layer shorter, by leaving out, lengthening or merging layers."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ide_transformer.dynamics import in_layers, stacked_operators, take_layers, whole_layers
from ide_transformer.models import Model


# The most selections to try. Models of up to eight layers have fewer.
MOST_SELECTIONS = 100


class Layered(NamedTuple):
    """A model in separate layers, and the origin of each step.

    - `steps`: the native layers of each step as text, `[intervals, operators]`: `"3"` for layer
      3, `"3+4"` for the mean of two.
    - `native`: the native model, in separate layers.
    """

    model: Model
    steps: np.ndarray
    native: Model

    def take(self, layers: np.ndarray) -> "Layered":
        """The model with operator i of layer `layers[n, i]` in interval n."""
        steps = np.take_along_axis(self.steps, layers, axis=0)
        return self._replace(model=take_layers(self.model, layers), steps=steps)

    def without(self, window: Sequence[int]) -> "Layered":
        """The model without layer `window[i]` of operator i."""
        layers = np.arange(len(self.steps))
        return self.take(np.stack([np.delete(layers, layer) for layer in window], axis=1))


def native_layers(model: Model) -> Layered:
    """A model in separate layers, one step for each interval."""
    layers = in_layers(model)
    steps = whole_layers(range(model.layers), model.equation.num_operators)
    return Layered(layers, steps.astype(str).astype(object), layers)


def selections(layered: Layered) -> Iterator[Layered]:
    """Selects unchanged native layers, one less than now, in every possible way. Yields nothing
    if there are too many ways."""
    intervals, operators = layered.steps.shape
    num_layers = layered.native.control.layers
    if math.comb(num_layers, intervals - 1) > MOST_SELECTIONS:
        return
    for choice in itertools.combinations(range(num_layers), intervals - 1):
        layers = whole_layers(choice, operators)
        steps = layers.astype(str).astype(object)
        yield layered._replace(model=take_layers(layered.native, layers), steps=steps)


def drops(layered: Layered) -> Iterator[Layered]:
    """Leaves out neighbouring operators, one of each kind.

    The steps of a splitting are a sequence, A_1 B_1 A_2 B_2 …. Leaving out A_2 B_2 removes a
    layer. Leaving out B_1 A_2 joins A_1 and B_2 to a layer. Both save an evaluation of every
    operator. Repeated, they reach every alternating subsequence.
    """
    return map(layered.without, _windows(layered))


def extensions(layered: Layered) -> Iterator[Layered]:
    """Leaves out operators as `drops` does, and adds the step size of each to the same operator
    in the layer before (at the beginning, after): one Euler step over both layers."""
    for window in _windows(layered):
        model = layered.model
        for operator, layer in enumerate(window):
            model = _add_rate(model, operator, layer - 1 if layer else 1, layer)
        yield layered._replace(model=model).without(window)


def mergers(layered: Layered) -> Iterator[Layered]:
    """Merges two neighbouring steps: mean of their weights over depth, sum of their step sizes,
    and the constraint of the second."""
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
    """Every window of neighbouring operators, as the layer of each operator."""
    intervals, operators = layered.steps.shape
    for first in range((intervals - 1) * operators + 1):
        layer, offset = divmod(first, operators)
        # A window that begins inside a layer takes its first operators from the next layer.
        yield [layer + (operator < offset) for operator in range(operators)]


def _add_rate(model: Model, operator: int, to: int, layer: int) -> Model:
    return eqx.tree_at(
        lambda m: stacked_operators(m)[operator].rate,
        model,
        replace_fn=lambda rate: rate.at[to].add(rate[layer]),
    )


def _average(model: Model, operator: int, layer: int) -> Model:
    """Sets the weights of `layer + 1` to the mean of both layers, weighted by step size."""
    rate = jnp.abs(stacked_operators(model)[operator].rate[layer : layer + 2])
    first, second = jnp.mean(rate.reshape(2, -1), axis=1)
    share = jnp.where(first + second > 0, first / (first + second), 0.5)

    def average(x):
        if not eqx.is_inexact_array(x):
            return x
        # Equal weights stay equal to the bit.
        mean = x[layer + 1] + share * (x[layer] - x[layer + 1])
        return x.at[layer + 1].set(mean.astype(x.dtype))

    return eqx.tree_at(
        lambda m: stacked_operators(m)[operator].operator,
        model,
        replace_fn=lambda x: jax.tree.map(average, x),
    )
