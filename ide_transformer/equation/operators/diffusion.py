from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...errors import InputError
from ..affine import nonnegative_array
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

    **Raises:** `InputError` on a domain whose points are not equally spaced, or have weights,
    as padding gives them: the expansion is that of equal ones.
    """

    rate: Float[Array, ""] = eqx.field(converter=nonnegative_array)

    dissipative: ClassVar[bool] = True

    def apply(self, function: Spectral, u: State, domain: TokenDomain) -> State:
        grid = domain.grid
        if grid is None or domain.weights is not None:
            raise InputError(
                "Diffusion needs tokens at equal distances, without weights or padding, as "
                "TokenDomain.uniform makes them."
            )
        if self.rate.shape:
            raise InputError(f"Diffusion.rate has shape {self.rate.shape}; give one number.")
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
