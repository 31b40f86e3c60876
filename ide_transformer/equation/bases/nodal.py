from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...errors import InputError
from ..feature_domain import FeatureDomain
from .basis import AbstractBasis


class Nodal(AbstractBasis):
    """Functions that are constant on each of `number` equal parts, `φ_a = √number` on part a
    and 0 elsewhere. At the middles of the parts, coefficients are values and kernels the
    matrices of an ordinary Transformer; with r points in each part every feature is there r
    times.

    **Raises:** `InputError`, in a `FunctionSpace`, for points that give the parts other sums of
    weights than one another: their number is a multiple of that of the parts.
    """

    def __call__(
        self, y: Float[Array, " points"], number: int
    ) -> Float[Array, "points number"]:
        part = _parts(y, number)
        return jnp.sqrt(jnp.asarray(number, y.dtype)) * jax.nn.one_hot(
            part, number, dtype=y.dtype
        )

    def check(self, domain: FeatureDomain, number: int) -> None:
        sums = np.bincount(_parts(domain.points, number), domain.weights, number)
        if np.ptp(sums) > 1e-6 / number:
            raise InputError(
                f"Nodal: {domain.features} points of the rule {domain.rule} give {number} "
                f"equal parts unequal weights, from {sums.min():.3g} to {sums.max():.3g}; take "
                f"a multiple of {number} points of the rule midpoint, or Cosine() for any "
                "number."
            )


def _parts(y: Any, number: int) -> Any:
    """The number of the part in which each of the points is."""
    # The beginning of a part, j / number, may be rounded to below it.
    above = 1 + 4 * jnp.finfo(y.dtype).eps
    return (y * number * above).astype(int).clip(0, number - 1)
