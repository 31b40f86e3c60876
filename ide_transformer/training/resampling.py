"""Weights and the state of their optimizer on another mesh in depth."""

import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from ..models import Mesh
from .averages import moving_average
from .optimizer import path_of
from .step import TrainState


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
    """The state of training with the weights on another number of intervals, see
    `Mesh`, and with them all that the optimizer keeps of each weight.

    A weight of one of n intervals acts over a depth of T/n, and its gradient is in proportion:
    where a weight becomes several, means of gradients are divided by their number and means of
    squares by its square, so that the next update is as large as it would have been. What has
    no axis of depth, or is a function of depth such as a polynomial, stays as it is.

    **Arguments:**

    - `optimizer`, `average`: those whose state it is.
    - `static`: the parts of the model that are no weights.
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
    is kept of this weight.

    **Arguments:**

    - `shorter`: the new length of an interval, as a part of the old one.
    """
    shapes = {path_of(path): x.shape for path, x in jax.tree.leaves_with_path(weights)}
    leaves = jax.tree.leaves_with_path(state)
    places = [_place(path_of(path), shapes) for path, _ in leaves]
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


def _place(path: str, shapes: dict[str, tuple[int, ...]]) -> tuple[str, str] | None:
    """The name in the optimizer, such as `1.0.mu`, and the path of the weight."""
    parts = path.split(".")
    for n in range(1, len(parts)):
        if (weight := ".".join(parts[n:])) in shapes:
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
