"""Functions at points as inputs of models."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

from ..arguments import check_fields, is_known
from ..equation import TokenDomain
from ..errors import InputError


class Field(NamedTuple):
    """Values of functions at the points of a domain.

    - `values`: `[..., tokens]`, or `[..., tokens, channels]`.
    - `domain`: the points, and their weights in integrals.
    """

    values: Float[Array | np.ndarray, "..."]
    domain: TokenDomain

    def check(self, tokens: int, bounded: tuple[bool, ...]) -> None:
        """Checks its fields.

        **Arguments:**

        - `tokens`: how many points the values are at.
        - `bounded`: for each axis of the domain whether it is [0, 1] and not a circle.

        **Raises:** `InputError` for values and domains of other types, for another number or
        dimension of points, and for points outside of [0, 1] along an axis that is bounded,
        where they are known when a program is compiled.
        """
        check_fields(self)
        if self.domain.num_tokens != tokens:
            raise InputError(
                f"Field: values at {tokens} points for a domain of {self.domain.num_tokens}; "
                "give one for each."
            )
        dimension = len(bounded)
        if self.domain.dimension != dimension:
            raise InputError(
                f"Field: its domain has dimension {self.domain.dimension}, but the model takes "
                f"functions in dimension {dimension}; give points [tokens, {dimension}]."
            )
        if not is_known(self.domain.points):
            return
        points = np.asarray(self.domain.points)
        rounding = 8 * np.finfo(points.dtype).eps
        outside = ((points < -rounding) | (points > 1 + rounding)) & np.array(bounded)
        if outside.any():
            first = points[outside.any(axis=1)][0].tolist()
            box = "[0, 1]" if dimension == 1 else f"[0, 1]^{dimension}"
            raise InputError(
                f"Field: its domain has the point {first}, outside of {box}; scale the "
                "coordinates to it."
            )
