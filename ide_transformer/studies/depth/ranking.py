"""Ranking of layers, and rules that keep those that matter."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import ArrayLike, PyTree
from scipy import stats

from ...dynamics import Quantity, defects, removal_estimate
from ...models import Model


Columns = dict[str, np.ndarray]
# From columns and a number of layers to the layers that are kept.
Rule = Callable[[Columns, int], Sequence[int]]


class Ranking(NamedTuple):
    """One row for each native layer, and how well each column ranks the layers.

    - `layers`: with `layer`, those of `Defects`, and what leaving the layer out does:
      `estimate`, as predicted, and `damage`, as measured.
    - `correlations`: Spearman's rank correlation of each column with `damage`.
    """

    layers: list[dict[str, Any]]
    correlations: dict[str, float]


def layer_columns(
    model: Model, inputs: PyTree[ArrayLike], read: Quantity | None = None
) -> Columns:
    """Predictions for each layer from the equation: the numbers of `Defects` and, as
    `estimate`, the `removal_estimate`; each `[intervals]`."""
    estimate = {"estimate": removal_estimate(model, inputs, read)}
    columns = defects(model, inputs)._asdict() | estimate
    return {name: np.asarray(column) for name, column in columns.items()}


def rank_layers(columns: Columns, damage: np.ndarray) -> Ranking:
    """The ranking of layers, from the error made by leaving each out, `[intervals]`, on other
    inputs than those of the columns."""
    layers = [
        {
            "layer": layer,
            **{
                name: float(column[layer]) if np.isfinite(column[layer]) else None
                for name, column in (columns | {"damage": damage}).items()
            },
        }
        for layer in range(len(damage))
    ]
    return Ranking(layers, {name: spearman(column, damage) for name, column in columns.items()})


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation over the pairs that have both numbers; NaN where it is not
    defined."""
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1])


def first_layers(columns: Columns, number: int) -> Sequence[int]:
    """Drops the last layers."""
    return range(number)


def evenly(columns: Columns, number: int) -> Sequence[int]:
    """Keeps layers evenly spread, the first and the last among them: every other one where
    half are kept. Reference: Sajjad et al., arXiv 2004.03844."""
    spread = np.linspace(0, len(columns["estimate"]) - 1, number)
    return spread.round().astype(int).tolist()


def most_turning(columns: Columns, number: int) -> Sequence[int]:
    """Keeps the layers of greatest block influence, the mean of `1 - cos(u_in, u_out)` over
    tokens. Reference: ShortGPT, Men et al., arXiv 2403.03853."""
    return _greatest(columns["turn"], number)


def most_needed(columns: Columns, number: int) -> Sequence[int]:
    """Keeps the layers of greatest `removal_estimate`."""
    return _greatest(columns["estimate"], number)


def at_random(seed: int) -> Rule:
    """Drops layers at random; a smaller number keeps some of those that a larger one keeps."""

    def rule(columns: Columns, number: int) -> Sequence[int]:
        order = np.random.default_rng(seed).permutation(len(columns["estimate"]))
        return sorted(order[:number].tolist())

    return rule


def _greatest(column: np.ndarray, number: int) -> Sequence[int]:
    return sorted(np.argsort(-column, kind="stable")[:number].tolist())


# By the equation, and as in use elsewhere.
NEEDED: dict[str, Rule] = {"least estimate dropped": most_needed}
RULES: dict[str, Rule] = {
    "last layers dropped": first_layers,
    "evenly spread": evenly,
    "least influence dropped": most_turning,
    **{f"random, seed {seed}": at_random(seed) for seed in range(3)},
}
