import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...errors import InputError
from ..affine import float_array
from ..domain import TokenDomain
from ..shapes import State
from .exact import AbstractLinearOperator, Spectral


class Diffusion(AbstractLinearOperator):
    """Diffusion over tokens with no flux through the ends, by a cosine expansion:

        u_t = κ Δ_x u,   flow(u, h) = C⁻¹ exp(-κ h |π k / N|²) C u,

    C is the discrete cosine transform over the N equally spaced tokens, k are its wave
    numbers, and neighbours have the distance 1. It sees all tokens, so it is for encoders.

    **Arguments:**

    - `rate`: κ ≥ 0, a number, in squared token distances per layer.
    - `grid`: (rows, columns) of a grid of patches; by default tokens are on a line.
    """

    rate: Float[Array, ""] = eqx.field(converter=float_array)
    grid: tuple[int, ...] | None = eqx.field(static=True, default=None)

    dissipative: ClassVar[bool] = True

    def apply(self, function: Spectral, u: State, domain: TokenDomain) -> State:
        grid = (domain.num_tokens,) if self.grid is None else self.grid
        if math.prod(grid) != domain.num_tokens:
            raise InputError(
                f"Diffusion.grid={grid} has {math.prod(grid)} points, but the domain has "
                f"{domain.num_tokens} tokens; they must be the same."
            )
        waves = np.meshgrid(*(np.pi * np.arange(n) / n for n in grid), indexing="ij")
        laplacian = -sum(wave**2 for wave in waves)
        factor = function(self.rate.astype(u.dtype) * jnp.asarray(laplacian, u.dtype))
        v = u.reshape(*u.shape[:-2], *grid, u.shape[-1])
        axes = range(u.ndim - 2, u.ndim - 2 + len(grid))
        for axis in axes:
            v = jax.scipy.fft.dct(v, axis=axis, norm="ortho")
        v = v * jnp.broadcast_to(factor[..., None], v.shape)
        for axis in axes:
            v = jax.scipy.fft.idct(v, axis=axis, norm="ortho")
        return v.reshape(u.shape)
