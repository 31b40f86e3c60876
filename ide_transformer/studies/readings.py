"""Whether readings of a model as a controlled system predict what a change of the model does to
its loss."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import stats

from .. import dynamics
from ..models import Model
from .depth_problem import Problem


# Samples are put into so many groups; of these, and of layers, heads or samples, the intervals
# draw again and again.
GROUPS, _DRAWS = 8, 1000
# Samples of which exponents and log-norms are computed.
_SPECTRA = 16


class Pairs(NamedTuple):
    """A reading and what was measured, `[groups, units]`, units of that kind."""

    reading: str
    measured: str
    units: str
    readings: np.ndarray
    outcomes: np.ndarray

    def row(self) -> dict[str, Any]:
        """Spearman's correlation of the means over groups, with a 95 % interval from draws of
        groups and of units with repetition."""
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
        drawn = (x[groups].mean(axis=0)[units] for x in (self.readings, self.outcomes))
        ranks = np.stack([stats.rankdata(x) for x in drawn])
        with np.errstate(invalid="ignore"):
            return float(np.corrcoef(ranks)[0, 1])


def compare_readings(
    model: Model, problem: Problem, heads: int | None, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """A row for each reading and what it might predict; `heads` is the size of the blocks of
    tokens on which single heads are computed, `None` for no heads."""
    say("readings against the loss without single operators")
    pairs = _operators(model, problem)
    say("readings against the loss with other steps")
    pairs += _steps(model, problem)
    if heads is not None:
        say("readings against the loss with single heads on a coarser grid")
        pairs += _heads(model, problem, heads)
    return [x.row() for x in pairs]


def _operators(model: Model, problem: Problem) -> list[Pairs]:
    layered = dynamics.native_layers(model).model
    shape = layered.control.num_intervals, model.equation.num_operators

    def with_rates(model: Model, rates: Array) -> Model:
        return eqx.tree_at(_rates, model, list(rates.T))

    units = [*np.ndindex(shape)]
    without = np.ones((len(units), *shape))
    without[(np.arange(len(units)), *np.transpose(units))] = 0
    outcomes = _changes(layered, problem, with_rates, np.ones(shape), without)

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
        Pairs(name, "loss without it", "operators", np.array(x), outcomes)
        for name, x in zip(names, zip(*each, strict=True), strict=True)
    ]


def _steps(model: Model, problem: Problem) -> list[Pairs]:
    layered = dynamics.native_layers(model)
    intervals, operators = layered.steps.shape

    def halved(layer: int) -> Model:
        """Two steps of half the length in one layer."""
        twice = np.insert(np.arange(intervals), layer, layer)
        rates = jnp.asarray(np.where(twice == layer, 0.5, 1.0))
        finer = layered.take(np.repeat(twice[:, None], operators, axis=1)).model

        return eqx.tree_at(_rates, finer, [rates.astype(x.dtype) for x in _rates(finer)])

    losses = eqx.filter_jit(lambda model: problem.losses(model(problem.held_out)))
    native = np.asarray(losses(model))
    changes = np.stack([np.asarray(losses(halved(x))) - native for x in range(intervals)])
    finer = model.with_options(steps_per_interval=2 * model.discretization.steps_per_interval)
    whole = (np.asarray(losses(finer)) - native)[:_SPECTRA]
    few = jax.tree.map(lambda x: x[: len(whole)], problem.held_out)
    norms = dynamics.log_norms(model, few)
    exponents = dynamics.stretching(model, few, 1)
    groups = min(GROUPS, len(norms))
    by_layer = np.stack([norms[group::groups].mean(axis=0) for group in range(groups)])
    outcomes = np.stack([changes[:, group::groups].mean(axis=1) for group in range(groups)])
    return [
        Pairs("log-norm", "loss with two steps in it", "layers", by_layer, outcomes),
        Pairs(
            "log-norm", "loss with twice the steps", "samples", norms.mean(1)[None], whole[None]
        ),
        Pairs(
            "largest exponent", "loss with twice the steps", "samples", exponents.T, whole[None]
        ),
    ]


def _heads(model: Model, problem: Problem, size: int) -> list[Pairs]:
    @eqx.filter_jit
    def readings(model, inputs):
        coarse = dynamics.coarse_heads(model, inputs, size)
        return [*coarse, dynamics.distances(model, inputs).mean]

    each: Any = []
    for group in range(GROUPS):
        inputs = jax.tree.map(lambda x: x[group::GROUPS], problem.held_out)  # noqa: B023
        each.append(readings(model, inputs))
    shape = each[0][0].shape
    alone = np.eye(np.prod(shape), dtype=bool).reshape(-1, *shape)
    outcomes = _changes(
        model,
        problem,
        lambda model, chosen: dynamics.with_coarse_heads(model, size, chosen),
        np.zeros(shape, bool),
        alone,
    )
    predicted, error, distance = (
        np.stack([np.ravel(x) for x in kind]) for kind in zip(*each, strict=True)
    )
    loss = f"loss with it on blocks of {size}"
    return [
        Pairs("predicted error", f"error on blocks of {size}", "heads", predicted, error),
        Pairs("mean distance", f"error on blocks of {size}", "heads", distance, error),
        Pairs("predicted error", loss, "heads", predicted, outcomes),
        Pairs("error", loss, "heads", error, outcomes),
        Pairs("mean distance", loss, "heads", distance, outcomes),
    ]


def _rates(layered: Any) -> list[Array]:
    """The step sizes of each operator of a model in layers."""
    return [operator.rate for operator in layered.control.blocks]


def _changes(
    model: Model,
    problem: Problem,
    changed: Callable[[Model, Array], Model],
    native: np.ndarray,
    others: np.ndarray,
) -> Float[np.ndarray, "groups units"]:
    """The change of the loss of each group of samples in each changed model."""

    @eqx.filter_jit
    def losses(model, given):
        return problem.losses(changed(model, given)(problem.held_out))

    before = losses(model, jnp.asarray(native))
    changes = np.stack([np.asarray(losses(model, jnp.asarray(x)) - before) for x in others])
    return np.stack([changes[:, group::GROUPS].mean(axis=1) for group in range(GROUPS)])
