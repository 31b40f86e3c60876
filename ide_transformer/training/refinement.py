"""Progressive depth: the models and the states of training of `training.refine`."""

import dataclasses
from collections.abc import Callable

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


def next_model(config: Config, model: AbstractModel, intervals: int) -> AbstractModel:
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
    """The arrays of the state of an optimizer, where one whose path ends with that of a weight
    is kept of this weight. An interval gets `shorter` by this factor."""
    paths = {path_of(path) for path, _ in jax.tree.leaves_with_path(weights)}
    leaves = jax.tree.leaves_with_path(state)
    places = [_place(path_of(path), paths) for path, _ in leaves]
    kept: dict[str, dict[str, Array]] = {}
    for place, (_, x) in zip(places, leaves, strict=True):
        if place is not None:
            kept.setdefault(place[0], {})[place[1]] = x
    new = {name: _resampled_like(found, weights, resample) for name, found in kept.items()}

    def at(place: tuple[str, str] | None, x: Array) -> Array:
        if place is None:
            return x
        name, path = place
        y, degree = new[name][path], _DEGREES[name.rpartition(".")[2]]
        if y.shape == x.shape:
            return x
        # A map with negative weights would leave the range of a mean of squares.
        return shorter**degree * (jnp.maximum(y, 0) if degree == 2 else y)

    return [at(place, x) for place, (_, x) in zip(places, leaves, strict=True)]


def _place(path: str, paths: set[str]) -> tuple[str, str] | None:
    """The name in the optimizer, such as `1.0.mu`, and the path of the weight."""
    parts = path.split(".")
    for n in range(1, len(parts)):
        if (weight := ".".join(parts[n:])) in paths:
            return ".".join(parts[:n]), weight
    return None


def _resampled_like(
    found: dict[str, Array], weights: PyTree[Array], resample: Callable
) -> dict[str, Array]:
    """Resample what an optimizer keeps of some weights as the weights are; by their paths."""
    tree = jax.tree.map_with_path(
        lambda path, x: found.get(path_of(path), jnp.zeros_like(x)), weights
    )
    return {path_of(path): x for path, x in jax.tree.leaves_with_path(resample(tree))}
