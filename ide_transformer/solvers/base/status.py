"""Solve status: keeps the first failure."""

from typing import Any

import diffrax
import jax.numpy as jnp
from jaxtyping import Array, Float


_NONFINITE: Any = diffrax.RESULTS.nonfinite


def success() -> diffrax.RESULTS:
    """Success so far, as a value that a loop can carry."""
    return diffrax.RESULTS.where(jnp.array(True), diffrax.RESULTS.successful, _NONFINITE)


def first_failure(earlier: diffrax.RESULTS, later: diffrax.RESULTS) -> diffrax.RESULTS:
    """`earlier` unless that was a success, else `later`."""
    return diffrax.RESULTS.where(earlier == diffrax.RESULTS.successful, later, earlier)


def finite(u: Float[Array, "..."]) -> diffrax.RESULTS:
    """Success if all of a state is finite."""
    everywhere = jnp.all(jnp.isfinite(u))
    return diffrax.RESULTS.where(everywhere, diffrax.RESULTS.successful, _NONFINITE)
