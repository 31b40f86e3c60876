import abc
from collections.abc import Callable
from typing import Literal, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ...arguments import NonNegativeFloat, PositiveInt
from ...errors import InputError


class Progress(NamedTuple):
    """A march with fixed steps, seen after step k of n.

    - `u`: the state `u_k`.
    - `increment`, `earlier`: `Δ_k = u_k - u_{k-1}` and `Δ_{k-1}`, NaN after the first step.
    - `remaining`: `r = n - k`.
    - `read_out`: the map from a state to the outputs of the model.
    """

    u: Float[Array, "*batch tokens features"]
    increment: Float[Array, "*batch tokens features"]
    earlier: Float[Array, "*batch tokens features"]
    remaining: Float[Array, ""]
    read_out: Callable[[Array], Array]

    def end(self, order: int) -> Float[Array, "*batch tokens features"]:
        """The state at depth T by extrapolation of this order, at most 2,

            E_0 = u_k,   E_1 = E_0 + r Δ_k,   E_2 = E_1 + r (r+1)/2 (Δ_k - Δ_{k-1}),

        Newton's backward differences. The error of E_q is `O((r h)^{q+1})`.
        """
        r, end = self.remaining, self.u
        if order >= 1:
            end = end + r * self.increment
        if order >= 2:
            end = end + r * (r + 1) / 2 * (self.increment - self.earlier)
        return end


class AbstractExit(eqx.Module):
    """A rule by which a token, or a sample with all its tokens, stops before the end of a
    solve, and its field is not evaluated any more. The others still see it. For the rest of
    depth it stays where it is, or it goes straight on with the increment of its last step:

        u_{k+1}(x) = u_k(x)   or   u_{k+1}(x) = u_k(x) + Δ(x).

    It stops after the step at which `measure`, for a sample its mean over the tokens that are
    not padding, is below `tolerance`, `hits` times in a row. A tolerance of 0 is the full
    solve. A subclass writes `measure`.

    Evaluations are counted for each token. Time is saved where all tokens have stopped: the
    rest of a batch that is still under way is computed as a whole. What attention needs of a
    token that has stopped, its keys and values, is computed at each step as before.

    Reference for tokens that stop and are still seen: Schuster et al., Confident Adaptive
    Language Modeling, arXiv 2207.07061.

    **Arguments:**

    - `tolerance`: in the unit of the measure.
    - `stops`: whether a `token` stops by itself or a `sample` as a whole.
    - `order`: what it does afterwards: 0, stay; 1, go straight on. A constraint needs 0.
    - `hits`: how often in a row.
    """

    tolerance: NonNegativeFloat
    stops: Literal["token", "sample"] = eqx.field(static=True, default="token")
    order: Literal[0, 1] = eqx.field(static=True, default=0)
    hits: PositiveInt = eqx.field(static=True, default=1)

    @abc.abstractmethod
    def measure(self, progress: Progress) -> Float[Array, "*batch tokens"]:
        """The number that falls below the tolerance, for each token; for each sample where
        the outputs have no axis of tokens. Where it is NaN, as long as it cannot be known, no
        token stops."""

    def below(
        self, progress: Progress, weights: Float[Array, "*domains tokens"]
    ) -> Bool[Array, "*batch tokens"]:
        """Whether the measure is below the tolerance; see `each`."""
        return self.each(progress, weights) < self.tolerance

    def each(
        self, progress: Progress, weights: Float[Array, "*domains tokens"]
    ) -> Float[Array, "*batch tokens"]:
        """The measure by which each token stops: its own, or that of its sample.

        **Arguments:**

        - `weights`: zero for padding.

        **Raises:** `InputError` where a token has no output of its own by which to stop.
        """
        measure, tokens = self.measure(progress), progress.u.shape[:-1]
        if measure.shape == tokens:
            if self.stops == "token":
                return measure
            counted = jnp.broadcast_to(weights > 0, tokens)
            measure = jnp.sum(jnp.where(counted, measure, 0), -1) / jnp.sum(counted, -1)
        elif measure.shape != tokens[:-1]:
            raise InputError(
                f"{type(self).__name__}: its measure has shape {measure.shape} for a state of "
                f"{progress.u.shape}; it must have one number for each token or each sample."
            )
        elif self.stops == "token":
            raise InputError(
                f"{type(self).__name__}: the model has an output for each sample and none for "
                "each token, by which a token could stop; give stops='sample'."
            )
        return jnp.broadcast_to(measure[..., None], tokens)
