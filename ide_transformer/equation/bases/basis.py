import abc

import equinox as eqx
from jaxtyping import Array, Float

from ..feature_domain import FeatureDomain


class AbstractBasis(eqx.Module):
    """Functions φ_0, φ_1, … on Ω_y = [0, 1], orthonormal: `∫ φ_a φ_b dy = δ_ab`. A subclass
    gives their values at points; arrays among its fields are trained with the coefficients.
    """

    @abc.abstractmethod
    def __call__(
        self, y: Float[Array, " points"], number: int
    ) -> Float[Array, "points number"]:
        """The values of the first `number` functions at points y."""

    def check(self, domain: FeatureDomain, number: int) -> None:
        """Refuses points at which so many functions would be others than at more points."""
