"""Rules by which a model gets more layers during a run."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from ...integration import Mesh
from ...models import Model
from ..configuration.key import path_of
from .step import TrainState, moving_average


class AbstractGrowth(eqx.Module):
    """A rule by which a model with few layers becomes one with more."""

    # Whether a coarse layer is the mean of finer ones. The mean of drawn weights would be
    # small, so the first weights are then drawn for the coarse layers themselves.
    averages: ClassVar[bool] = False

    @abc.abstractmethod
    def coarse(self, model: Model, layers: int) -> Model:
        """The model with fewer layers from which `model` grows."""

    @abc.abstractmethod
    def grown(self, model: Model, layers: int) -> Model:
        """The model with more layers. It is linear in the weights of `model`, so that the
        moments of an optimizer grow by it too."""


class Refinement(AbstractGrowth):
    """The same weights θ(t) on more layers of the same depth T: a step of size h becomes k
    steps of size h / k."""

    averages: ClassVar[bool] = True

    def coarse(self, model: Model, layers: int) -> Model:
        return model.on(Mesh(layers=layers))

    def grown(self, model: Model, layers: int) -> Model:
        return model.on(Mesh(layers=layers))


# The power of the gradient in the state of an optimizer, by the name in optax: means of
# gradients, of squares, of weights.
_DEGREES = {"mu": 1, "nu": 2, "ema": 0}


def grown_state(
    state: TrainState,
    *,
    growth: AbstractGrowth,
    optimizer: optax.GradientTransformation,
    static: PyTree,
    layers: int,
    average: float = 0.0,
) -> TrainState:
    """Resamples the state of training to another number of layers: the weights, their average
    and their moments.

    A weight of a layer of length h acts over a depth of h, and its gradient is proportional to
    h. If h becomes h/k, means of gradients are divided by k and means of squares by k², so that
    the size of the next update does not change.
    """

    def grow(weights: PyTree[Array]) -> PyTree[Array]:
        model = growth.grown(eqx.combine(weights, static), layers)
        return eqx.filter(model, eqx.is_inexact_array)

    before = eqx.combine(state.weights, static)
    after = eqx.filter_eval_shape(growth.grown, before, layers)
    shorter = after.control.interval_length / before.control.interval_length
    weights = grow(state.weights)
    leaves = _grow_moments((state.optimizer, state.average), state.weights, grow, shorter)
    shapes = jax.eval_shape(
        lambda weights: (optimizer.init(weights), moving_average(average).init(weights)),
        weights,
    )
    optimizer_state, mean = jax.tree.structure(shapes).unflatten(leaves)
    return dataclasses.replace(state, weights=weights, optimizer=optimizer_state, average=mean)


def _grow_moments(
    state: PyTree, weights: PyTree[Array], grow: Callable, shorter: float
) -> list[Array]:
    """The arrays of the state of an optimizer. A tree in it with the structure of the weights
    holds a value for each weight, or for some, the others masked. The layers become shorter by
    the factor `shorter`."""
    arrays, structure = jax.tree.flatten(weights)
    leaves: list[Array] = []
    parts = jax.tree.leaves_with_path(state, is_leaf=lambda x: type(x) is type(weights))
    for path, part in parts:
        if type(part) is not type(weights):
            leaves.append(part)
            continue
        degree = _DEGREES[path_of(path).rpartition(".")[2]]
        moments = jax.tree.leaves(part, is_leaf=_is_masked)
        filled = [
            jnp.zeros_like(x) if _is_masked(moment) else moment
            for x, moment in zip(arrays, moments, strict=True)
        ]
        grown = jax.tree.leaves(grow(structure.unflatten(filled)))
        for x, y in zip(moments, grown, strict=True):
            if not _is_masked(x):
                # Resampling with negative weights must not make a mean of squares negative.
                scaled = shorter**degree * (jnp.maximum(y, 0) if degree == 2 else y)
                leaves.append(x if x.shape == y.shape else scaled)
    return leaves


def _is_masked(x: Any) -> bool:
    return isinstance(x, optax.MaskedNode)
