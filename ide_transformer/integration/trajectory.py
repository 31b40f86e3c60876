import itertools
from typing import NamedTuple

import diffrax
import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from ..equation import AbstractNormalization, Equation, parts
from ..solvers import Evaluations, evaluations_made, finite, first_failure, success


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


class Status(NamedTuple):
    """The first failure of a march, and the depth at which it was seen."""

    result: diffrax.RESULTS
    # Infinite where nothing failed.
    failed_at: Float[Array, ""]

    @classmethod
    def start(cls, dtype: np.dtype) -> "Status":
        """Nothing has failed yet."""
        return cls(success(), jnp.array(jnp.inf, dtype))

    def after(
        self,
        result: diffrax.RESULTS,
        u: Float[Array, "*batch tokens features"],
        depth: Float[Array, ""],
    ) -> "Status":
        """The status at this depth, where the solve has this result and this state."""
        result = first_failure(result, finite(u))
        failed_at = jnp.where(
            result == diffrax.RESULTS.successful, jnp.inf, jnp.minimum(self.failed_at, depth)
        )
        return Status(result, failed_at)


class Trajectory(NamedTuple):
    """The outcome of a march, of fixed or of adaptive steps.

    - `states`: the state at the end of each interval, if asked for.
    - `interpolation`: one for each interval, stacked, if asked for.
    """

    u1: Float[Array, "*batch tokens features"]
    states: Float[Array, "intervals *batch tokens features"] | None
    interpolation: diffrax.DenseInterpolation | None
    status: Status
    steps: Int[Array, ""] | int
    rejected: Int[Array, ""] | int
    field_evaluations: Float[Array, ""] | float

    def raise_on_failure(self, equation: Equation) -> Float[Array, "*batch tokens features"]:
        """`u1`, or an error that says how the solve failed and in which interval."""
        result, failed_at = self.status
        which = sum(
            jnp.where(result == getattr(diffrax.RESULTS, name), index, 0)
            for index, name in enumerate(_FAILURES)
        )
        knots = equation.knots
        inside = jnp.searchsorted(jnp.asarray(knots[1:]), failed_at)
        # Of a token whose features are all the same.
        singular = any(x.eps == 0 for x in parts(equation.constraint, AbstractNormalization))
        hints = {
            "nonfinite": "If a token is constant, give the constraint eps=1e-5. " * singular
        }
        messages = [
            f"solve failed between depths {start:g} and {end:g} of {equation.horizon:g} with "
            f"{name}. {diffrax.RESULTS[getattr(diffrax.RESULTS, name)]} "
            f"{hints.get(name, '')}Take smaller steps, or call solve with throw=False and look "
            "at result, failed_at and us."
            for start, end in itertools.pairwise(knots)
            for name in _FAILURES
        ]
        failed = result != diffrax.RESULTS.successful
        index = jnp.where(failed, inside * len(_FAILURES) + which, 0)
        return eqx.branched_error_if(self.u1, failed, index, messages)


def field_evaluations(
    cost: Evaluations | None,
    steps: Int[Array, ""] | int,
    starts: Int[Array, ""] | int,
    counted: PyTree,
) -> Float[Array, ""] | float:
    """The field evaluations of a whole solve: steps times their cost, or those that an
    implicit scheme has counted, or NaN where it has not.

    **Arguments:**

    - `starts`: the number of steps before which the field jumps.
    - `counted`: the last state of the solver, or those of all intervals, stacked.
    """
    if cost is not None:
        return steps * cost.following + starts * (cost.first - cost.following)
    made = evaluations_made(counted)
    return jnp.nan if made is None else jnp.sum(made.count)
