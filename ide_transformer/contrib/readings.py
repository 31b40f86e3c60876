"""Correlates readings of a model with what changes of the model do to its loss."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ide_transformer import dynamics
from ide_transformer.contrib.depth import spearman
from ide_transformer.contrib.depth_problem import Problem
from ide_transformer.contrib.layers import native_layers
from ide_transformer.contrib.scales import coarse_heads, distances, heads_of, with_coarse_heads
from ide_transformer.contrib.spectra import log_norms, stretching
from ide_transformer.dynamics import rates
from ide_transformer.integration import Mesh
from ide_transformer.models import Model


# Groups of samples, and draws of groups and units for the intervals.
GROUPS = 8
_DRAWS = 1000
# Samples for exponents and log-norms.
_SPECTRA = 16


class Pairs(NamedTuple):
    """A reading and an outcome, `[groups, units]`; `units` names them, such as "layers"."""

    reading: str
    measured: str
    units: str
    readings: np.ndarray
    outcomes: np.ndarray

    def row(self) -> dict[str, Any]:
        """Spearman's correlation of the means over groups, with a 95 % bootstrap interval over
        groups and units."""
        groups, units = self.readings.shape
        random = np.random.default_rng(0)
        draws = [
            self._correlation(
                random.integers(groups, size=groups), random.integers(units, size=units)
            )
            for _ in range(_DRAWS)
        ]
        low, high = np.nanpercentile(draws, [2.5, 97.5])
        return {
            "reading": self.reading,
            "measured": self.measured,
            "correlation": self._correlation(np.arange(groups), np.arange(units)),
            "low": float(low),
            "high": float(high),
            "units": f"{units} {self.units}",
        }

    def _correlation(self, groups: np.ndarray, units: np.ndarray) -> float:
        both = self.readings, self.outcomes
        return spearman(*(x[groups].mean(axis=0)[units] for x in both))


def compare_readings(
    model: Model, problem: Problem, heads: tuple[int, np.ndarray] | None
) -> Iterator[dict[str, Any]]:
    """Yields a row for each reading and outcome with three units or more. `heads` has the size
    of blocks of tokens, and what `changes_of_heads` gives for it; `None` for no heads."""
    parts = [_operators, _steps]
    if heads is not None:
        parts.append(lambda model, problem: _heads(model, problem, *heads))
    pairs = (x for part in parts for x in part(model, problem))
    yield from (x.row() for x in pairs if x.readings.shape[1] >= 3)


def changes_of_heads(
    model: Model, problem: Problem, size: int
) -> Float[np.ndarray, "heads samples"]:
    """The change of the loss of each sample with one head alone on blocks of `size` tokens,
    layer by layer."""
    number = sum(x.heads for x in heads_of(model.control(0.0)))
    shape = model.layers, number
    alone = np.eye(math.prod(shape), dtype=bool).reshape(-1, *shape)
    return _changes(
        model,
        problem,
        lambda model, chosen: with_coarse_heads(model, size, chosen),
        np.zeros(shape, bool),
        alone,
    )


def _operators(model: Model, problem: Problem) -> list[Pairs]:
    layered = native_layers(model).model
    shape = layered.control.layers, model.equation.num_operators
    changes = _changes(
        layered,
        problem,
        lambda model, given: eqx.tree_at(rates, model, tuple(given.T)),
        np.ones(shape),
        1 - np.eye(math.prod(shape)).reshape(-1, *shape),
    )

    @eqx.filter_jit
    def readings(model, group):
        def loss(outputs):
            each = problem.losses(outputs)
            own = jnp.arange(len(each)) % GROUPS == group
            return jnp.sum(jnp.where(own, each, 0)) / jnp.sum(own)

        found = dynamics.costates(model, problem.held_out, loss)
        axes = tuple(range(1, found.costates.ndim))
        size = jnp.sqrt(jnp.mean(found.costates[:-1] ** 2, axis=axes))
        sizes = jnp.broadcast_to(size[:, None], shape)
        return [found.stationarity.ravel(), sizes.ravel(), -found.hamiltonian.ravel()]

    each = [readings(model, jnp.asarray(group)) for group in range(GROUPS)]
    names = "stationarity", "size of the costate", "-⟨p, A_i(u)⟩"
    return [
        Pairs(name, "loss without it", "operators", np.array(x), _of_groups(changes))
        for name, x in zip(names, zip(*each, strict=True), strict=True)
    ]


def _steps(model: Model, problem: Problem) -> list[Pairs]:
    layered = native_layers(model)
    intervals, operators = layered.steps.shape
    losses = eqx.filter_jit(lambda model: problem.losses(model(problem.held_out)))
    native = np.asarray(losses(model))
    changes = []
    for layer in range(intervals):
        # Two steps of half the length in one layer.
        twice = np.insert(np.arange(intervals), layer, layer)
        sizes = jnp.asarray(np.where(twice == layer, 0.5, 1.0))
        finer = layered.take(np.repeat(twice[:, None], operators, axis=1)).model
        given = tuple(sizes.astype(x.dtype) for x in rates(finer))
        changes.append(np.asarray(losses(eqx.tree_at(rates, finer, given))) - native)
    finer = model.solved_on(Mesh(steps=2 * model.steps))
    whole = (np.asarray(losses(finer)) - native)[None, :_SPECTRA]
    few = jax.tree.map(lambda x: x[:_SPECTRA], problem.held_out)
    norms = log_norms(model, few)
    exponents = stretching(model, few, 1)
    groups = min(GROUPS, len(norms))
    by_layer = _of_groups(norms.T, groups)
    outcomes = _of_groups(np.stack(changes), groups)
    of_all = ("loss with twice the steps", "samples")
    return [
        Pairs("log-norm", "loss with two steps in it", "layers", by_layer, outcomes),
        Pairs("log-norm", *of_all, norms.mean(1)[None], whole),
        Pairs("largest exponent", *of_all, exponents.T, whole),
    ]


def _heads(model: Model, problem: Problem, size: int, changes: np.ndarray) -> list[Pairs]:
    @eqx.filter_jit
    def readings(model, inputs):
        coarse = coarse_heads(model, inputs, size)
        return [*coarse, distances(model, inputs).mean]

    each = []
    for group in range(GROUPS):
        inputs = jax.tree.map(lambda x: x[group::GROUPS], problem.held_out)  # noqa: B023
        each.append([np.ravel(x) for x in readings(model, inputs)])
    predicted, error, distance = map(np.stack, zip(*each, strict=True))
    outcomes = _of_groups(changes)
    off = f"error on blocks of {size}"
    loss = f"loss with it on blocks of {size}"
    return [
        Pairs("predicted error", off, "heads", predicted, error),
        Pairs("mean distance", off, "heads", distance, error),
        Pairs("predicted error", loss, "heads", predicted, outcomes),
        Pairs("error", loss, "heads", error, outcomes),
        Pairs("mean distance", loss, "heads", distance, outcomes),
    ]


def _of_groups(x: Any, groups: int = GROUPS) -> Float[np.ndarray, "groups units"]:
    """The means of `[units, samples]` over groups of samples."""
    return np.stack([x[:, group::groups].mean(axis=1) for group in range(groups)])


def _changes(
    model: Model,
    problem: Problem,
    changed: Callable[[Model, Array], Model],
    native: np.ndarray,
    others: np.ndarray,
) -> Float[np.ndarray, "units samples"]:
    @eqx.filter_jit
    def losses(model, given):
        return problem.losses(changed(model, given)(problem.held_out))

    before = losses(model, jnp.asarray(native))
    return np.stack([np.asarray(losses(model, jnp.asarray(x)) - before) for x in others])
