import jax.numpy as jnp
from jaxtyping import Array, Float

from ..domain import TokenDomain
from ..shapes import State
from .grid import check_axes, grid_axes, neighbors, on_grid
from .operator import AbstractOperator


class DifferenceAdvection(AbstractOperator):
    """Transport along the tokens by differences against the wind, of first order, which is
    stable where `Σ_axes |c| / h` times the step is at most 1,

        du/dt = -Σ_axes c (u(x) - u(x - h)) / h   for c > 0,

    and the other neighbour for c < 0. Beyond a boundary u goes on as it is there. `Advection`
    has the exact flow on a periodic domain. With c > 0 it looks back only; but c is trained,
    and its sign may change, so that it is none for a causal model.

    **Arguments:**

    - `velocity`: c, a number for each axis, in distances of the domain per layer.

    **Raises:** `InputError` on a domain whose points are not equally spaced, or have weights.
    """

    velocity: Float[Array, " dimension"]

    def __call__(self, u: State, domain: TokenDomain) -> State:
        check_axes(self, len(self.velocity), domain)
        v = on_grid(self, u, domain)
        total = jnp.zeros_like(v)
        parts = zip(grid_axes(domain), domain.steps, self.velocity.astype(u.dtype), strict=True)
        for axis, step, c in parts:
            before, after = neighbors(v, axis, domain)
            total = total - c / step * jnp.where(c > 0, v - before, after - v)
        return total.reshape(u.shape)
