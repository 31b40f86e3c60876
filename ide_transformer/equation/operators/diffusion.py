from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...errors import InputError
from ..affine import nonnegative_array
from ..domain import TokenDomain
from ..shapes import State
from .exact import AbstractLinearOperator, Spectral
from .grid import goes_around, grid_axes, on_grid, times_waves, wave_numbers


class Diffusion(AbstractLinearOperator):
    """Diffusion over tokens, by the eigenfunctions of the Laplacian on the grid,

        u_t = κ Δ_x u,   flow(u, h) = C⁻¹ exp(-κ h |k|²) C u.

    C is the cosine transform, with no flux through the ends and k = π j / L, or on a periodic
    domain the Fourier transform, with k = 2π j / L; L is the length of an axis, N for N text
    tokens. It sees all tokens, so it is for encoders.

    **Arguments:**

    - `rate`: κ ≥ 0, a number, in squared distances of the domain per layer.

    **Raises:** `InputError` on a domain whose points are not equally spaced, or have weights,
    as padding gives them: the expansion is that of equal ones.
    """

    rate: Float[Array, ""] = eqx.field(converter=nonnegative_array)

    dissipative: ClassVar[bool] = True

    def apply(self, function: Spectral, u: State, domain: TokenDomain) -> State:
        v = on_grid(self, u, domain)
        if self.rate.shape:
            raise InputError(f"Diffusion.rate has shape {self.rate.shape}; give one number.")
        laplacian = -sum(wave**2 for wave in wave_numbers(domain))
        factor = function(self.rate.astype(u.dtype) * jnp.asarray(laplacian, u.dtype))
        if goes_around("Diffusion", domain):
            return times_waves(v, factor, domain).reshape(u.shape)
        for axis in grid_axes(domain):
            v = jax.scipy.fft.dct(v, axis=axis, norm="ortho")
        v = v * jnp.broadcast_to(factor[..., None], v.shape)
        for axis in grid_axes(domain):
            v = jax.scipy.fft.idct(v, axis=axis, norm="ortho")
        return v.reshape(u.shape)
