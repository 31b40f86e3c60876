"""Progressive depth: the models and the states of training of `training.refine`."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from ..errors import InputError
from ..models import Mesh, Model
from .config import Config
from .optimizer import path_of
from .step import TrainState, moving_average


def first_model(config: Config, build: Callable[[Config], Model]) -> Model:
    """The model with which a run begins: that of the configuration, on the first mesh of
    `training.refine`. Weights that do not depend on the mesh are those drawn for `model.depth`.
    Layers are drawn for the first mesh, since the mean of several draws would be small."""
    model = build(config)
    if not config.training.refine:
        return model
    depth = config.training.refine[0]
    first = _with_intervals(config, model, depth)
    if _weight_shapes(first) == _weight_shapes(model):
        return first
    horizon = config.control.horizon or float(config.model.depth)
    sections = {
        "model": config.model.model_copy(update={"depth": depth}),
        "control": config.control.model_copy(update={"horizon": horizon}),
    }
    return build(config.model_copy(update=sections))


def next_model(config: Config, model: Model, intervals: int) -> Model:
    """The model on the next mesh of `training.refine`, which has to divide layers."""
    before = model.control.num_intervals
    new = _with_intervals(config, model, intervals)
    if intervals % before and _weight_shapes(new) != _weight_shapes(model):
        raise InputError(
            f"training.refine={config.training.refine}: {before} intervals of "
            f"{type(model.control).__name__} are not divided by {intervals} into equal parts; "
            f"take a multiple, such as {2 * before}."
        )
    return new


def _with_intervals(config: Config, model: Model, intervals: int) -> Model:
    try:
        return model.on(Mesh(intervals=intervals))
    except InputError as error:
        raise InputError(f"training.refine={config.training.refine}: {error}") from None


def _weight_shapes(model: Model) -> list[tuple[int, ...]]:
    return [x.shape for x in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))]


# How often the gradient is a factor of what an optimizer keeps of a weight, by the name that
# optax gives it: a mean of gradients, a mean of their squares, another value of the weight.
_DEGREES = {"mu": 1, "nu": 2, "z": 0, "ema": 0}


def resample_state(
    state: TrainState,
    *,
    optimizer: optax.GradientTransformation,
    static: PyTree,
    num_intervals: int,
    average: float = 0.0,
) -> TrainState:
    """The state of training with the weights, and all that the optimizer keeps of each, on
    another number of intervals, see `Mesh`.

    A weight of one of n intervals acts over a depth of T/n, and its gradient is in proportion:
    where a weight becomes several, means of gradients are divided by their number and means of
    squares by its square, so that the next update is as large as it would have been. What has
    no axis of depth, or is a function of depth such as a polynomial, stays as it is.
    """

    def resample(weights: PyTree[Array]) -> PyTree[Array]:
        model = eqx.combine(weights, static).on(Mesh(intervals=num_intervals))
        return eqx.filter(model, eqx.is_inexact_array)

    before = eqx.combine(state.weights, static).control.num_intervals
    weights = resample(state.weights)
    kept = state.optimizer, state.average
    leaves = _resampled_optimizer(kept, state.weights, resample, before / num_intervals)
    # The trees of weights in it are now those of another mesh.
    shapes = jax.eval_shape(
        lambda weights: (optimizer.init(weights), moving_average(average).init(weights)),
        weights,
    )
    optimizer_state, mean = jax.tree.structure(shapes).unflatten(leaves)
    return dataclasses.replace(state, weights=weights, optimizer=optimizer_state, average=mean)


def _resampled_optimizer(
    state: PyTree, weights: PyTree[Array], resample: Callable, shorter: float
) -> list[Array]:
    """The arrays of the state of an optimizer, in which each tree of the kind of the weights is
    kept of them, or of some where the others are masked. Intervals get `shorter` so much."""
    own, structure = jax.tree.flatten(weights)
    leaves: list[Array] = []
    parts = jax.tree.leaves_with_path(state, is_leaf=lambda x: type(x) is type(weights))
    for path, part in parts:
        if type(part) is not type(weights):
            leaves.append(part)
            continue
        degree = _DEGREES[path_of(path).rpartition(".")[2]]
        kept = jax.tree.leaves(part, is_leaf=_masked)
        whole = [jnp.zeros_like(x) if _masked(y) else y for x, y in zip(own, kept, strict=True)]
        new = jax.tree.leaves(resample(structure.unflatten(whole)))
        for x, y in zip(kept, new, strict=True):
            if not _masked(x):
                # A map with negative weights would leave the range of a mean of squares.
                scaled = shorter**degree * (jnp.maximum(y, 0) if degree == 2 else y)
                leaves.append(x if x.shape == y.shape else scaled)
    return leaves


def _masked(x: Any) -> bool:
    return isinstance(x, optax.MaskedNode)
