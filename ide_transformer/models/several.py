"""Solves of one model, one after the other."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, PRNGKeyArray

from ..integration import Solution


def split_key(key: PRNGKeyArray | None, number: int) -> list[PRNGKeyArray | None]:
    """So many keys; none without a key."""
    return [None] * number if key is None else [*jax.random.split(key, number)]


def after(earlier: Solution, solution: Solution) -> Solution:
    """The solution of a stage, with what it took to come to its inputs."""
    succeeded = earlier.succeeded
    result, failed_at = jax.tree.map(
        lambda before, own: jnp.where(succeeded, own, before),
        (earlier.result, earlier.failed_at),
        (solution.result, solution.failed_at),
    )
    stats = {name: _sum(earlier.stats[name], own) for name, own in solution.stats.items()}
    residual = "constraint_residual"
    stats[residual] = jnp.maximum(jnp.max(earlier.stats[residual]), solution.stats[residual])
    return eqx.tree_at(
        lambda s: (s.stats, s.result, s.failed_at), solution, (stats, result, failed_at)
    )


def _sum(earlier: ArrayLike, own: ArrayLike) -> Array:
    """The sum of numbers of two stages. Where one counts for each token or sample and the
    other does not so, the mean of the earlier one is taken."""
    alike = jnp.shape(earlier) in ((), jnp.shape(own))
    return jnp.asarray(own) + (earlier if alike else jnp.mean(jnp.asarray(earlier)))
