"""Differences between schemes whose runs have the same seeds."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class Difference(NamedTuple):
    """A mean difference; its 95 % interval is `mean ± half_width`, which is `None` for a single
    pair."""

    mean: float
    half_width: float | None


def paired_difference(values: Sequence[float], reference: Sequence[float]) -> Difference:
    """The mean of `dᵢ = valuesᵢ - referenceᵢ` over n pairs, with its interval of Student,
    `t(0.975, n - 1) s / √n`, where `s` is the standard deviation of the differences."""
    differences = np.subtract(values, reference)
    mean, number = float(differences.mean()), len(differences)
    if number == 1:
        return Difference(mean, None)
    error = stats.sem(differences)
    return Difference(mean, float(stats.t.ppf(0.975, number - 1) * error))
