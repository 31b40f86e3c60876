from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Float, PyTree

from ...equation import TokenDomain


class TokenNorm(eqx.Module):
    """The root mean square over the tokens that are not padding and over features,

        ‖e‖² = Σ_j [w_j > 0] |e_j|² / (features Σ_j [w_j > 0]),

    w_j the quadrature weights of the domain.

    **Arguments:**

    - `weights`: `[..., tokens]`.
    """

    weights: Float[Array, "*batch tokens"]

    def __call__(self, error: PyTree[Array]) -> Float[Array, ""]:
        def squares(e):
            counted = jnp.broadcast_to((self.weights > 0)[..., None], e.shape)
            return jnp.sum(jnp.where(counted, e**2, 0)), jnp.sum(counted)

        sums = [squares(e) for e in jax.tree.leaves(error)]
        total = sum(total for total, _ in sums)
        number = sum(number for _, number in sums)
        # The derivative of a square root at zero is infinite.
        positive = jnp.where(total > 0, total, 1)
        return jnp.where(total > 0, jnp.sqrt(positive / number), 0)


def without_padding(controller: Any, domain: TokenDomain) -> Any:
    """The step size controller with padded tokens kept out of its error norm; one with a
    norm of its own keeps it."""
    if domain.weights is None:
        return controller
    norm = TokenNorm(domain.weights)

    def is_pid(x):
        return isinstance(x, diffrax.PIDController)

    def replace(x):
        if is_pid(x) and x.norm is optx.rms_norm:
            return eqx.tree_at(lambda pid: pid.norm, x, norm)
        return x

    return jax.tree.map(replace, controller, is_leaf=is_pid)
