import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...arguments import PositiveInt
from .exit import AbstractExit, Progress


class SecondDifferenceExit(AbstractExit):
    """Exit by the second difference of the states,

        |Δ_k - Δ_{k-1}| / |Δ_k|,   Δ_k = u_k - u_{k-1},

    |·| the norm over features. It needs no read-out; it sees neither what a change of the
    state means for the outputs nor how many steps are left. Reference: Pappone, Crisostomi,
    Rodolà, Two-Scale Latent Dynamics for Recurrent-Depth Transformers, arXiv 2509.23314,
    where two hits in a row stop.

    **Arguments:** see `AbstractExit`.
    """

    hits: PositiveInt = eqx.field(static=True, default=2)

    def measure(self, progress: Progress) -> Float[Array, "*batch tokens"]:
        change = jnp.linalg.norm(progress.increment - progress.earlier, axis=-1)
        size = jnp.linalg.norm(progress.increment, axis=-1)
        # A token that does not move any more has nothing left to change.
        return jnp.where(change == 0, 0, change / jnp.where(size == 0, 1, size))
