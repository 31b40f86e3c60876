"""Which layers matter: the defects of the equation against the damage of leaving them out."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import ArrayLike, PyTree

from ..models import AbstractModel
from .damage import defects, removal_damage, removal_estimate


class Ranking(NamedTuple):
    """One row for each native layer, and how well each column ranks the layers.

    - `layers`: with `layer`, those of `Defects`, and what leaving the layer out does:
      `estimate` on the calibration batch, `damage` on the held-out one.
    - `correlations`: Spearman's rank correlation of each column with `damage`.
    """

    layers: list[dict[str, Any]]
    correlations: dict[str, float]


def rank_layers(
    model: AbstractModel, calibration: PyTree[ArrayLike], held_out: PyTree[ArrayLike]
) -> Ranking:
    """The ranking of a model's layers.

    **Arguments:**

    - `calibration`: inputs on which defects are estimated.
    - `held_out`: inputs on which the damage is measured.
    """
    columns = {
        **defects(model, calibration)._asdict(),
        "estimate": removal_estimate(model, calibration),
    }
    columns = {name: np.asarray(column) for name, column in columns.items()}
    damage = removal_damage(model, held_out)
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
    """What is not a number has no place in JSON."""
    return x if np.isfinite(x) else None
