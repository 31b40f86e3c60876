import itertools

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..equation import Equation
from .trajectory import Status


# The ways in which a solve can end badly; anything else is an internal error.
_FAILURES = (
    "internal_error",
    "max_steps_reached",
    "dt_min_reached",
    "max_steps_rejected",
    "nonfinite",
    "nonlinear_max_steps_reached",
    "nonlinear_divergence",
    "singular",
    "breakdown",
    "stagnation",
)


def raise_on_failure(
    equation: Equation, u1: Float[Array, "*batch tokens features"], status: Status
) -> Float[Array, "*batch tokens features"]:
    """`u1`, or an error that says how the solve failed and in which interval."""
    which = sum(
        jnp.where(status.result == getattr(diffrax.RESULTS, name), index, 0)
        for index, name in enumerate(_FAILURES)
    )
    knots = equation.knots
    inside = jnp.searchsorted(jnp.asarray(knots[1:]), status.failed_at)
    messages = [
        f"solve failed between depths {start:g} and {end:g} of {equation.horizon:g} with "
        f"{name}. {diffrax.RESULTS[getattr(diffrax.RESULTS, name)]} Take smaller steps, "
        "or call solve with throw=False and look at result, failed_at and us."
        for start, end in itertools.pairwise(knots)
        for name in _FAILURES
    ]
    failed = status.result != diffrax.RESULTS.successful
    index = jnp.where(failed, inside * len(_FAILURES) + which, 0)
    return eqx.branched_error_if(u1, failed, index, messages)
