"""Makes a model one layer shorter: leaves out, lengthens or merges layers."""

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


# The most choices of whole layers that are tried; up to eight layers have fewer.
MOST_SELECTIONS = 100


class Layered(NamedTuple):
    """A model in layers, and the native layers of which each step is made.

    - `steps`: `[intervals, operators]`, texts: `"3"` for layer 3, `"3+4"` for a mean of two.
    - `native`: the native model, in layers.
    """

    model: Model
    steps: np.ndarray
    native: Model

    def take(self, layers: np.ndarray) -> "Layered":
        """Operator i of layer `layers[n, i]` in interval n."""
        steps = np.take_along_axis(self.steps, layers, axis=0)
        return self._replace(model=take_layers(self.model, layers), steps=steps)

    def without(self, window: Sequence[int]) -> "Layered":
        """Operator i without its layer `window[i]`."""
        every = np.arange(len(self.steps))
        return self.take(np.stack([np.delete(every, layer) for layer in window], axis=1))


def native_layers(model: Model) -> Layered:
    """One step for each interval."""
    layers = in_layers(model)
    steps = whole_layers(range(model.layers), model.equation.num_operators)
    return Layered(layers, steps.astype(str).astype(object), layers)


def selections(layered: Layered) -> Iterator[Layered]:
    """Every choice of unchanged native layers with one interval less; none if there are too
    many to try each."""
    intervals, operators = layered.steps.shape
    number = layered.native.control.layers
    if math.comb(number, intervals - 1) > MOST_SELECTIONS:
        return
    for choice in itertools.combinations(range(number), intervals - 1):
        layers = whole_layers(choice, operators)
        steps = layers.astype(str).astype(object)
        yield layered._replace(model=take_layers(layered.native, layers), steps=steps)


def drops(layered: Layered) -> Iterator[Layered]:
    """Leave out neighbouring operators, one of each kind.

    The steps of a splitting are one sequence, A_1 B_1 A_2 B_2 …. Either a whole layer (A_2 B_2)
    is left out, or B_1 A_2, so that A_1 and B_2 form a layer. Both save one evaluation of every
    operator; repeated, they reach every alternating subsequence.
    """
    return map(layered.without, _windows(layered))


def extensions(layered: Layered) -> Iterator[Layered]:
    """Leave out operators as `drops` does; the operator before the one left out (the one after
    it at the beginning) takes the sum of their step sizes: one Euler step over both."""
    for window in _windows(layered):
        model = layered.model
        for operator, layer in enumerate(window):
            model = _add_rate(model, operator, layer - 1 if layer else 1, layer)
        yield layered._replace(model=model).without(window)


def mergers(layered: Layered) -> Iterator[Layered]:
    """Merge two neighbouring steps: the mean of their weights over depth, the sum of their step
    sizes, and the constraint of the second."""
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
        # A window that begins inside a layer takes its first operators from the next layer.
        yield [layer + (operator < gone) for operator in range(operators)]


def _add_rate(model: Model, operator: int, to: int, layer: int) -> Model:
    return eqx.tree_at(
        lambda m: stacked_operators(m)[operator].rate,
        model,
        replace_fn=lambda rate: rate.at[to].add(rate[layer]),
    )


def _average(model: Model, operator: int, layer: int) -> Model:
    """The second of two layers gets the mean of their weights, weighted by step size."""
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
