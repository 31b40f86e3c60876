from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..domain import TokenDomain
from ..shapes import State
from .exact import AbstractLinearOperator, Spectral
from .grid import check_axes, check_periodic, on_grid, times_waves, wave_numbers


class Advection(AbstractLinearOperator):
    """Transport along the tokens of a periodic domain at a constant velocity, by waves:

        u_t = -c·∇_x u,   flow(u, h)(x) = u(x - h c).

    **Arguments:**

    - `velocity`: c, a number for each axis, in distances of the domain per layer.

    **Raises:** `InputError` on a domain that is not periodic, or whose points are not equally
    spaced, or have weights.
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
