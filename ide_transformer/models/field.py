"""Functions at points as inputs of models."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

from ..equation import TokenDomain


class Field(NamedTuple):
    """Values of functions at the points of a domain.

    - `values`: `[..., tokens]`, or `[..., tokens, channels]`.
    - `domain`: the points, and their weights in integrals.
    """

    values: Float[Array | np.ndarray, "..."]
    domain: TokenDomain
