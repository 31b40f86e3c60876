import abc
from collections.abc import Callable
from typing import Literal, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from ...arguments import NonNegativeFloat, PositiveInt
from ...errors import InputError


class Progress(NamedTuple):
    """A march with fixed steps, seen after step k of n.

    - `u`: the state `u_k`.
    - `increment`, `earlier`: `Δ_k = u_k - u_{k-1}` and `Δ_{k-1}`, NaN after the first step.
    - `remaining`: `n - k`.
    - `read_out`: the map from a state to the outputs of the model.
    """

    u: Float[Array, "*batch tokens features"]
    increment: Float[Array, "*batch tokens features"]
    earlier: Float[Array, "*batch tokens features"]
    remaining: Float[Array, ""]
    read_out: Callable[[Array], PyTree[Array]]


class AbstractExit(eqx.Module):
    """A rule by which a token, or a sample with all its tokens, stops before the end of a
    solve. From then on its state stays as it is, and the others still see it:

        u_t(x) = m(x, t) Σ_i A_i(u; θ(t))(x),   m = 0 once x has stopped, else 1.

    A token stops after the step at which `measure`, for a sample its mean over the tokens
    that are not padding, is below `tolerance`, `hits` times in a row. A tolerance of 0 is the
    full solve.

    A subclass writes `measure`. Reference for tokens that stop and are still seen: Schuster
    et al., Confident Adaptive Language Modeling, arXiv 2207.07061.

    **Arguments:**

    - `tolerance`: in the unit of the measure.
    - `stops`: whether a `token` stops by itself or a `sample` as a whole.
    - `hits`: how often in a row.
    """

    tolerance: NonNegativeFloat
    stops: Literal["token", "sample"] = eqx.field(static=True, default="token")
    hits: PositiveInt = eqx.field(static=True, default=1)

    @abc.abstractmethod
    def measure(self, progress: Progress) -> Float[Array, "*batch tokens"]:
        """The number that falls below the tolerance, for each token. It may be NaN where it
        is not known yet; a token does not stop then."""

    def below(
        self, progress: Progress, weights: Float[Array, "*batch tokens"]
    ) -> Bool[Array, "*batch tokens"]:
        """Whether the measure is below the tolerance.

        **Arguments:**

        - `weights`: 0 for padding, else 1.

        **Raises:** `InputError` where a token has no output of its own by which to stop.
        """
        measure, tokens = self.measure(progress), progress.u.shape[:-1]
        if measure.shape == tokens:
            if self.stops == "token":
                return measure < self.tolerance
            counted = jnp.where(weights > 0, measure, 0)
            measure = jnp.sum(counted, -1) / jnp.sum(jnp.broadcast_to(weights > 0, tokens), -1)
        elif self.stops == "token":
            raise InputError(
                f"{type(self).__name__}: the model has outputs for each sample and not for "
                "each token, so a token cannot stop by its own; give stops='sample'."
            )
        return jnp.broadcast_to((measure < self.tolerance)[..., None], tokens)
