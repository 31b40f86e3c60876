"""Diffusion and transport along the tokens of a grid."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...errors import InputError
from ..arrays import State, affine, nonnegative_array
from ..domain import TokenDomain
from .grid import (
    check_axes,
    check_periodic,
    differences,
    goes_around,
    grid_axes,
    on_grid,
    times_waves,
    wave_numbers,
)
from .operator import AbstractLinearOperator, AbstractOperator, Spectral


class Diffusion(AbstractLinearOperator):
    """Diffusion over tokens, by the eigenfunctions of the Laplacian on the grid,

        u_t = κ Δ_x u,   flow(u, h) = C⁻¹ exp(-κ h |k|²) C u.

    C is the cosine transform, with no flux through the ends and k = π j / L, or on a periodic
    domain the Fourier transform, with k = 2π j / L; L is the length of an axis, N for N text
    tokens. It sees all tokens, so it is for encoders.

    **Arguments:**

    - `rate`: κ ≥ 0, a number, in squared distances of the domain per layer.

    **Raises:** `InputError` on a domain whose points are not equally spaced, or have weights.
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


class Advection(AbstractLinearOperator):
    """Transport along the tokens of a periodic domain at a constant velocity, by waves:

        u_t = -c·∇_x u,   flow(u, h)(x) = u(x - h c).

    **Arguments:**

    - `velocity`: c, a number for each axis, in distances of the domain per layer.

    **Raises:** `InputError` on a domain that is no periodic grid of equal weights.
    """

    velocity: Float[Array, " dimension"]

    dissipative: ClassVar[bool] = False

    def apply(self, function: Spectral, u: State, domain: TokenDomain) -> State:
        check_periodic(self, domain)
        check_axes(self, len(self.velocity), domain)
        v = on_grid(self, u, domain)
        assert domain.grid is not None
        rate = jnp.zeros(domain.grid, jnp.result_type(u.dtype, jnp.complex64))
        for n, c, waves in zip(domain.grid, self.velocity, wave_numbers(domain), strict=True):
            # Of an even number of points the last wave has no derivative that is real.
            last = np.isclose(waves, waves.min()) & (n % 2 == 0)
            slope = jnp.asarray(np.where(last, 0, waves), u.dtype)
            rate = rate - 1j * c.astype(u.dtype) * slope
        return times_waves(v, function(rate), domain).reshape(u.shape)


class DifferenceDiffusion(AbstractOperator):
    """Diffusion over tokens by central differences, of second order,

        du/dt = Σ_axes κ (u(x + h) - 2 u(x) + u(x - h)) / h²,

    with no flux through the ends, or on a periodic domain around it. `Diffusion` has its exact
    flow.

    **Arguments:**

    - `rate`: κ ≥ 0, a number or `[features]`, in squared distances of the domain per layer.

    **Raises:** `InputError` on a domain whose points are not equally spaced, or have weights.
    """

    rate: Float[Array, "..."] = eqx.field(converter=nonnegative_array)

    def __call__(self, u: State, domain: TokenDomain) -> State:

        def second(axis, step, before, v, after):
            return (before - 2 * v + after) / step**2

        return affine(differences(self, u, domain, second), self.rate)


class DifferenceAdvection(AbstractOperator):
    """Transport along the tokens by differences against the wind, of first order, which is
    stable where `Σ_axes |c| / h` times the step is at most 1,

        du/dt = -Σ_axes c (u(x) - u(x - h)) / h   for c > 0,

    and the other neighbour for c < 0, so that it is none for a causal model. Beyond a boundary
    u goes on as it is there. `Advection` has the exact flow on a periodic domain.

    **Arguments:**

    - `velocity`: c, a number for each axis, in distances of the domain per layer.

    **Raises:** `InputError` on a domain whose points are not equally spaced, or have weights.
    """

    velocity: Float[Array, " dimension"]

    def __call__(self, u: State, domain: TokenDomain) -> State:
        check_axes(self, len(self.velocity), domain)

        def upwind(axis, step, before, v, after):
            c = self.velocity[axis].astype(u.dtype)
            return -c / step * jnp.where(c > 0, v - before, after - v)

        return differences(self, u, domain, upwind)
