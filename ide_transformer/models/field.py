"""Functions at points as inputs of models."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float

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

    def inside(self, bounded: tuple[bool, ...]) -> Bool[Array | np.ndarray, " tokens"]:
        """Indicator of the points in [0, 1] along each axis that is bounded.

        **Arguments:**

        - `bounded`: for each axis of the domain whether it is [0, 1] and not a circle.
        """
        points = self.domain.points
        points = np.asarray(points) if is_known(points) else points
        rounding = 8 * np.finfo(points.dtype).eps
        within = (points >= -rounding) & (points <= 1 + rounding)
        return (within | ~np.array(bounded)[None]).all(axis=-1)

    def check(self, tokens: int, bounded: tuple[bool, ...]) -> None:
        """Checks its fields.

        **Arguments:**

        - `tokens`: how many points the values are at.
        - `bounded`: see `inside`.

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
        inside = self.inside(bounded)
        if is_known(inside) and not inside.all():
            first = np.asarray(self.domain.points)[~np.asarray(inside)][0].tolist()
            box = "[0, 1]" if dimension == 1 else f"[0, 1]^{dimension}"
            raise InputError(
                f"Field: its domain has the point {first}, outside of {box}; scale the "
                "coordinates to it."
            )
