from typing import NamedTuple

import diffrax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..solvers import finite, first_failure, success


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

    - `u1`: the state at depth T.
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
