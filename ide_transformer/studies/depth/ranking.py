"""Which layers matter: their defects against the damage of leaving them out."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import ArrayLike, PyTree

from ...depth import Quantity, defects, removal_estimate
from ...models import AbstractModel


Columns = dict[str, np.ndarray]


class Ranking(NamedTuple):
    """One row for each native layer, and how well each column ranks the layers.

    - `layers`: with `layer`, those of `Defects`, and what leaving the layer out does:
      `estimate`, as predicted, and `damage`, as measured.
    - `correlations`: Spearman's rank correlation of each column with `damage`.
    """

    layers: list[dict[str, Any]]
    correlations: dict[str, float]


def layer_columns(
    model: AbstractModel, inputs: PyTree[ArrayLike], read: Quantity | None = None
) -> Columns:
    """Predictions for each layer from the equation: the numbers of `Defects` and, as
    `estimate`, the `removal_estimate`; each `[intervals]`."""
    columns = {
        **defects(model, inputs)._asdict(),
        "estimate": removal_estimate(model, inputs, read),
    }
    return {name: np.asarray(column) for name, column in columns.items()}


def rank_layers(columns: Columns, damage: np.ndarray) -> Ranking:
    """The ranking of a model's layers.

    **Arguments:**

    - `columns`: see `layer_columns`.
    - `damage`: `[intervals]`, the error made by leaving each out, on other inputs than those of
      the columns.
    """
    layers = [
        {
            "layer": layer,
            **{name: _number(float(column[layer])) for name, column in columns.items()},
            "damage": _number(float(damage[layer])),
        }
        for layer in range(len(damage))
    ]
    return Ranking(layers, {name: spearman(column, damage) for name, column in columns.items()})


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation over the pairs that have both numbers; NaN where fewer than
    two have. Equal numbers share the mean of their ranks."""
    known = np.isfinite(x) & np.isfinite(y)
    ranks = _ranks(x[known]), _ranks(y[known])
    if any(np.ptp(r) == 0 if len(r) else True for r in ranks):
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])


def _ranks(x: np.ndarray) -> np.ndarray:
    return np.array([np.sum(x < value) + 0.5 * np.sum(x == value) for value in x])


def _number(x: float) -> float | None:
    """`None` for NaN and infinity, which JSON does not have."""
    return x if np.isfinite(x) else None
