from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..domain import TokenDomain
from ..shapes import State
from .exact import AbstractLinearOperator, Spectral
from .grid import check_axes, check_periodic, grid_axes, on_grid, wave_numbers


class Advection(AbstractLinearOperator):
    """Transport along the tokens of a periodic domain at a constant velocity, by waves:

        u_t = -c·∇_x u,   flow(u, h)(x) = u(x - h c).

    **Arguments:**

    - `velocity`: c, a number for each axis, in distances of the domain per layer.

    **Raises:** `InputError` on a domain that is not periodic, or whose points are not equally
    spaced, or have weights.
    """

    velocity: Float[Array, " dimension"]

    sees_all: ClassVar[bool] = True
    dissipative: ClassVar[bool] = False

    def apply(self, function: Spectral, u: State, domain: TokenDomain) -> State:
        check_periodic(self, domain)
        check_axes(self, len(self.velocity), domain)
        v, axes = on_grid(self, u, domain), grid_axes(domain)
        rate = jnp.zeros(domain.grid, jnp.result_type(u.dtype, jnp.complex64))
        for number, waves in enumerate(wave_numbers(domain)):
            # Of an even number of points the last wave has no derivative that is real.
            waves = np.where(np.isclose(waves, waves.min()) & (_even(domain, number)), 0, waves)
            rate = rate - 1j * self.velocity[number].astype(rate.real.dtype) * jnp.asarray(
                waves
            )
        factor = jnp.broadcast_to(function(rate)[..., None], v.shape)
        moved = jnp.fft.ifftn(factor * jnp.fft.fftn(v, axes=axes), axes=axes).real
        return moved.reshape(u.shape).astype(u.dtype)


def _even(domain: TokenDomain, axis: int) -> bool:
    assert domain.grid is not None
    return domain.grid[axis] % 2 == 0
