"""Diffusion and transport over the points of a grid by differences of neighbours."""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..arrays import State, affine, nonnegative_array
from ..domain import TokenDomain
from .grid import check_axes, goes_around, grid_axes, on_grid
from .operator import AbstractOperator


def _differences(
    operator: object, u: State, domain: TokenDomain, difference: Callable[..., Array]
) -> State:
    """The sum over axes of `difference(axis, step, before, v, after)`, v the state."""
    v = on_grid(operator, u, domain)
    mode = "wrap" if goes_around(operator, domain) else "edge"
    total = jnp.zeros_like(v)
    for number, (axis, step) in enumerate(zip(grid_axes(domain), domain.steps, strict=True)):
        padding = [(0, 0)] * v.ndim
        padding[axis] = (1, 1)
        wide, points = jnp.pad(v, padding, mode=mode), np.arange(v.shape[axis])
        before, after = (jnp.take(wide, points + shift, axis) for shift in (0, 2))
        total = total + difference(number, step, before, v, after)
    return total.reshape(u.shape)


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

        return affine(_differences(self, u, domain, second), self.rate)


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

        return _differences(self, u, domain, upwind)
