"""Bicubic interpolation of values on a grid."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float


# The a of Keys (1981) that image libraries use; his own is -1/2.
_SLOPE = -0.75


def resample(
    values: Float[Array, "rows columns features"], grid: tuple[int, int]
) -> Float[Array, "new_rows new_columns features"]:
    """Values at the centres of the cells of one grid, taken to those of another one over the
    same rectangle. Separable: `out[i, j] = Σ_kl R_ik C_jl values[k, l]`. On the same grid it
    is the identity.

    **Arguments:**

    - `grid`: (rows, columns) of the other grid.
    """
    rows, columns = (
        jnp.asarray(bicubic_matrix(old, new), values.dtype)
        for old, new in zip(values.shape, grid, strict=False)
    )
    highest = lax.Precision.HIGHEST
    return jnp.einsum("ik,jl,klf->ijf", rows, columns, values, precision=highest)


def bicubic_matrix(old: int, new: int) -> np.ndarray:
    """`[new, old]`: the weights of `old` points in each of `new` points of one axis. Beyond
    the ends the last value goes on. Reference: Keys, IEEE Trans. ASSP 29 (1981) 1153."""
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(centres).astype(int) - 1
    matrix = np.zeros((new, old))
    for neighbour in range(4):
        points = first + neighbour
        places = np.arange(new), np.clip(points, 0, old - 1)
        np.add.at(matrix, places, _kernel(np.abs(centres - points)))
    return matrix


def _kernel(x: np.ndarray) -> np.ndarray:
    """Keys' convolution kernel for distances `0 ≤ x ≤ 2`."""
    a = _SLOPE
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, far)
