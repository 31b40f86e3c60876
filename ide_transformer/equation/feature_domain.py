"""The feature domain Ω_y: the points of features and the weights of integrals over them."""

import dataclasses
import functools as ft

import equinox as eqx
import numpy as np

from ..arguments import PositiveInt
from ..errors import InputError
from . import rules
from .rules import PointRule


class FeatureDomain(eqx.Module):
    """Points `y_j` of Ω_y = [0, 1] and quadrature weights `w_j` of sum 1, so that

        ∫_Ωy g(y) dy  ≈  Σ_j w_j g(y_j).

    The width of a state is their number; see `FunctionSpace` for weights that are functions of
    y. It holds no array and is the same for all that have the same rule and number.

    **Arguments:**

    - `features`: the number of points.
    - `rule`: "midpoint", the middles of equal parts, of order 2, and for a cosine series
      faster than any power; "periodic", the points `j / features` of a circle;
      "gauss_legendre" and "clenshaw_curtis" as for `TokenDomain`.
    """

    features: PositiveInt = eqx.field(static=True)
    rule: PointRule = eqx.field(static=True, default="midpoint")

    def __check_init__(self):
        if self.rule == "clenshaw_curtis" and self.features < 2:
            raise InputError(
                "FeatureDomain: clenshaw_curtis takes both ends; give features=2 or more."
            )

    @property
    def points(self) -> np.ndarray:
        """`[features]`, in [0, 1]."""
        return _rule(self.features, self.rule)[0]

    @property
    def weights(self) -> np.ndarray:
        """`[features]`, of sum 1."""
        return _rule(self.features, self.rule)[1]

    @property
    def equal(self) -> bool:
        """Whether all weights are the same, so that means over Ω_y are those of features."""
        return self.rule in ("midpoint", "periodic")

    def with_points(self, features: int) -> "FeatureDomain":
        """Another number of points, by the same rule."""
        return dataclasses.replace(self, features=features)


_RULES = {"gauss_legendre": rules.gauss_legendre, "clenshaw_curtis": rules.clenshaw_curtis}


@ft.cache
def _rule(features: int, rule: str) -> tuple[np.ndarray, np.ndarray]:
    if rule in ("midpoint", "periodic"):
        shift = 0.5 if rule == "midpoint" else 0.0
        return (np.arange(features) + shift) / features, np.full(features, 1 / features)
    points, weights = _RULES[rule](features)
    return (points + 1) / 2, weights / 2
