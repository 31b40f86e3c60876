"""Types of what the equation is made of."""

from typing import TYPE_CHECKING, TypeAlias

import jax
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int


# A depth t, counted in layers: a number or a scalar array.
if TYPE_CHECKING:
    Depth: TypeAlias = float | jax.Array | np.ndarray
else:
    Depth = Float[ArrayLike, ""] | Int[ArrayLike, ""]

# The state u, or a rate du/dt of it.
State: TypeAlias = Float[Array, "*batch tokens features"]

# Vectors of features, such as the tokens of a state, each by itself.
Features: TypeAlias = Float[Array, "*batch features"]
