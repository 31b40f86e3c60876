import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...errors import InputError
from ..affine import nonnegative_array
from ..domain import TokenDomain
from ..shapes import State
from .grid import grid_axes, neighbors, on_grid
from .operator import AbstractOperator


class DifferenceDiffusion(AbstractOperator):
    """Diffusion over tokens by central differences, of second order,

        du/dt = Σ_axes κ (u(x + h) - 2 u(x) + u(x - h)) / h²,

    with no flux through the ends, or on a periodic domain around it. `Diffusion` has its exact
    flow.

    **Arguments:**

    - `rate`: κ ≥ 0, a number for each feature or one for all, in squared distances of the
      domain per layer.

    **Raises:** `InputError` on a domain whose points are not equally spaced, or have weights.
    """

    rate: Float[Array, "..."] = eqx.field(converter=nonnegative_array)

    def __call__(self, u: State, domain: TokenDomain) -> State:
        if self.rate.shape not in ((), u.shape[-1:]):
            raise InputError(
                f"DifferenceDiffusion.rate has shape {self.rate.shape}; give one number, or "
                f"one for each of the {u.shape[-1]} features."
            )
        v = on_grid(self, u, domain)
        total = jnp.zeros_like(v)
        for axis, step in zip(grid_axes(domain), domain.steps, strict=True):
            before, after = neighbors(v, axis, domain)
            total = total + (before - 2 * v + after) / step**2
        return (jnp.broadcast_to(self.rate.astype(u.dtype), v.shape) * total).reshape(u.shape)
