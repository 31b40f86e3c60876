"""The ways to make a model one interval coarser."""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..models import AbstractModel
from .layers import in_layers, stacked_operators, take_operators


class Layered(NamedTuple):
    """A model in layers, and the native layers that each of its steps is made of.

    - `steps`: `[intervals, operators]`, texts: `"3"` for layer 3, `"3+4"` for a mean of two.
    - `native`: the native model, in layers.
    """

    model: AbstractModel
    steps: np.ndarray
    native: AbstractModel


def native_layers(model: AbstractModel) -> Layered:
    """One step for each interval."""
    intervals, operators = model.control.num_intervals, model.equation.num_operators
    steps = np.array([[str(layer)] * operators for layer in range(intervals)], object)
    layers = in_layers(model)
    return Layered(layers, steps, layers)


# More are not worth trying; up to eight layers have fewer.
MOST_SELECTIONS = 100


def selections(layered: Layered) -> Iterator[Layered]:
    """Every choice of whole native layers with one interval less, unchanged; none where there
    are too many choices to try each."""
    intervals, operators = layered.steps.shape
    number = layered.native.control.num_intervals
    if math.comb(number, intervals - 1) > MOST_SELECTIONS:
        return
    for kept in itertools.combinations(range(number), intervals - 1):
        layers = np.repeat(np.array(kept)[:, None], operators, axis=1)
        model = take_operators(layered.native, layers)
        yield layered._replace(model=model, steps=layers.astype(str).astype(object))


def drops(layered: Layered) -> Iterator[Layered]:
    """Leave out neighbouring operators, one of each kind.

    The steps of a splitting are one sequence, A_1 B_1 A_2 B_2 …. Leaving out a whole layer
    (A_2 B_2) is one choice; leaving out B_1 A_2, so that A_1 and B_2 form a layer, is another.
    Both save one evaluation of every operator, and every subsequence that alternates is
    reached by a succession of them.
    """
    for window in _windows(layered):
        yield _without(layered, window)


def extensions(layered: Layered) -> Iterator[Layered]:
    """Drops as `drops` makes them, but the operator before the one left out (at the
    beginning, the one after it) takes the sum of their step sizes: one step of Euler's method
    over both."""
    for window in _windows(layered):
        model = layered.model
        for operator, layer in enumerate(window):
            model = _add_rate(model, operator, layer - 1 if layer else 1, layer)
        yield _without(layered._replace(model=model), window)


def mergers(layered: Layered) -> Iterator[Layered]:
    """One step in the place of two neighbours, with the mean of their weights over depth and
    the sum of their step sizes. It ends on the constraint of the second."""
    intervals, operators = layered.steps.shape
    for layer in range(intervals - 1):
        model, steps = layered.model, layered.steps.copy()
        for operator in range(operators):
            model = _add_rate(_average(model, operator, layer), operator, layer + 1, layer)
        steps[layer + 1] = [f"{a}+{b}" for a, b in zip(*steps[layer : layer + 2], strict=True)]
        yield _without(layered._replace(model=model, steps=steps), [layer] * operators)


def _windows(layered: Layered) -> Iterator[list[int]]:
    """The layer from which each operator is left out."""
    intervals, operators = layered.steps.shape
    for first in range((intervals - 1) * operators + 1):
        layer, gone = divmod(first, operators)
        # Where a window begins inside a layer, its first operators are those of the next.
        yield [layer + (operator < gone) for operator in range(operators)]


def _without(layered: Layered, window: list[int]) -> Layered:
    intervals, operators = layered.steps.shape
    kept = [np.delete(np.arange(intervals), window[i]) for i in range(operators)]
    layers = np.stack(kept, axis=1)
    steps = np.take_along_axis(layered.steps, layers, axis=0)
    return layered._replace(model=take_operators(layered.model, layers), steps=steps)


def _add_rate(model: AbstractModel, operator: int, to: int, layer: int) -> AbstractModel:
    return eqx.tree_at(
        lambda m: stacked_operators(m)[operator].rate,
        model,
        replace_fn=lambda rate: rate.at[to].add(rate[layer]),
    )


def _average(model: AbstractModel, operator: int, layer: int) -> AbstractModel:
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
