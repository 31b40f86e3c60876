"""Rules by which a model gets more layers during a run."""

import abc
import dataclasses
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from ...integration import Mesh
from ...models import Model
from ..configuration.key import path_of
from .step import TrainState


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


def grow_state(
    state: TrainState, *, growth: AbstractGrowth, static: PyTree, layers: int
) -> TrainState:
    """Resamples the state of training to another number of layers: the weights, their average
    and their moments.

    A weight of a layer of length h acts over a depth of h, and its gradient is proportional to
    h. If h becomes h/k, means of gradients are divided by k and means of squares by k², so that
    the size of the next update does not change. `static` is the model without its weights.
    """
    before = eqx.combine(state.weights, static)
    after = eqx.filter_eval_shape(growth.grown, before, layers)
    shorter = after.control.interval_length / before.control.interval_length

    def grow(weights: PyTree[Array]) -> PyTree[Array]:
        model = growth.grown(eqx.combine(weights, static), layers)
        return eqx.filter(model, eqx.is_inexact_array)

    def is_of_weights(tree: Any) -> bool:
        return type(tree) is type(state.weights)

    def grow_moments(path: tuple, tree: PyTree) -> PyTree:
        # A tree of weights holds a value for each weight, or for some, the others masked.
        if not is_of_weights(tree):
            return tree
        moments, structure = jax.tree.flatten(tree, is_leaf=_is_masked)
        pairs = zip(moments, jax.tree.leaves(state.weights), strict=True)
        filled = [jnp.zeros_like(x) if _is_masked(moment) else moment for moment, x in pairs]
        grown, finer_structure = jax.tree.flatten(grow(structure.unflatten(filled)))
        degree = _DEGREES[path_of(path).rpartition(".")[2]]
        leaves = []
        for moment, x in zip(moments, grown, strict=True):
            if _is_masked(moment) or moment.shape == x.shape:
                leaves.append(moment)
            else:
                # Resampling with negative weights must not make a mean of squares negative.
                leaves.append(shorter**degree * (jnp.maximum(x, 0) if degree == 2 else x))
        return finer_structure.unflatten(leaves)

    moments = state.optimizer, state.average
    optimizer, average = jax.tree.map_with_path(grow_moments, moments, is_leaf=is_of_weights)
    return dataclasses.replace(
        state, weights=grow(state.weights), optimizer=optimizer, average=average
    )


def _is_masked(x: Any) -> bool:
    return isinstance(x, optax.MaskedNode)
