"""Functions at points as inputs of models."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

from ..arguments import check_fields
from ..equation import TokenDomain
from ..errors import InputError


class Field(NamedTuple):
    """Values of functions at the points of a domain.

    - `values`: `[..., tokens]`, or `[..., tokens, channels]`.
    - `domain`: the points, and their weights in integrals.
    """

    values: Float[Array | np.ndarray, "..."]
    domain: TokenDomain

    def check(self, tokens: int) -> None:
        """Checks its fields.

        **Arguments:**

        - `tokens`: how many points the values are at.

        **Raises:** `InputError` for values and domains of other types, and for another number
        of points.
        """
        check_fields(self)
        if self.domain.num_tokens != tokens:
            raise InputError(
                f"Field: values at {tokens} points for a domain of {self.domain.num_tokens}; "
                "give one for each."
            )
