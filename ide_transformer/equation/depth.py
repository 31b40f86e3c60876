from typing import TYPE_CHECKING, TypeAlias

import jax
import numpy as np
from jaxtyping import ArrayLike, Float, Int


# A depth t, counted in layers: a number or a scalar array.
if TYPE_CHECKING:
    Depth: TypeAlias = float | jax.Array | np.ndarray
else:
    Depth = Float[ArrayLike, ""] | Int[ArrayLike, ""]
