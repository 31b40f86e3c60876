"""The solution of an equation."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from ..arguments import checked, is_known
from ..equation import Depth, listing, spelled
from ..errors import InputError


class Solution(eqx.Module):
    """The solution of an equation.

    **Attributes:**

    - `u1`: `[..., tokens, features]`, the state at depth T; of a solve that failed, the one
      at which it stopped.
    - `ts`, `us`: the depths asked for and the states there, `us: [depths, ..., tokens,
      features]`; with `SaveAt(fn=…)` its values in their place.
    - `stats`: a dictionary with `steps`, `accepted`, `rejected`, `field_evaluations` (one
      is every operator once, or a product with the Jacobian; those of the accepted steps
      only for implicit schemes, NaN for one with a root finder of its own) and
      `constraint_residual` (the largest over tokens at T).
    - `result`: how the solve ended, one of `diffrax.RESULTS`.
    - `failed_at`: the depth at which it failed; infinite if it did not.

    Where each sample has steps of its own, the last three have an entry for each.
    """

    u1: Float[Array, "*batch tokens features"]
    ts: Float[Array, " depths"]
    us: PyTree[Array]
    stats: dict[str, Any]
    result: diffrax.RESULTS
    failed_at: Float[Array, "*samples"]
    # One interpolation for each interval, stacked, and the length of an interval.
    interpolation: diffrax.DenseInterpolation | None
    interval_length: float = eqx.field(static=True)

    def __repr__(self) -> str:
        shapes = {name: spelled(getattr(self, name)) for name in ("u1", "ts", "us")}
        counts = {name.replace("_", " "): _range(x) for name, x in self.stats.items()}
        return listing(self, {"status": self._status, **shapes, **counts})

    @property
    def _status(self) -> str:
        if not is_known(self.failed_at):
            return "not known yet"
        failed = np.isfinite(self.failed_at).ravel()
        if not failed.any():
            return "succeeded"
        first = jax.tree.map(lambda x: jnp.ravel(x)[failed.argmax()], self.result)
        which = f"{failed.sum()} of {failed.size} samples " if failed.size > 1 else ""
        return f"{which}failed at depth {np.min(self.failed_at):g}: {diffrax.RESULTS[first]}"

    @property
    def succeeded(self) -> Bool[Array, "*samples"]:
        return self.result == diffrax.RESULTS.successful

    @checked
    def evaluate(self, t: Depth) -> Float[Array, "*batch tokens features"]:
        """The state at any depth `t ∈ [0, T]`; needs `saveat=diffrax.SaveAt(dense=True)`. A
        depth outside is an `InputError`; where it is known only at run time, the state is NaN.
        """
        if self.interpolation is None:
            raise InputError(
                "Solution.evaluate needs dense output: solve(…, "
                "saveat=diffrax.SaveAt(dense=True))."
            )
        horizon = self.interpolation.ts.shape[0] * self.interval_length
        outside = (t < 0) | (t > horizon)
        if is_known(t) and np.any(outside):
            raise InputError(
                f"Solution.evaluate: t={t}: the equation was solved for depths in "
                f"[0, {horizon:g}]."
            )
        state = interpolate(self.interpolation, self.interval_length, t)
        return jnp.where(outside, jnp.nan, state)


def _range(x: Any) -> str:
    """A number, or the least and the largest of those of the samples."""
    if not is_known(x) or not np.size(x):
        return spelled(x)
    ends = [f"{end:,.{15 if end == np.round(end) else 3}g}" for end in (np.min(x), np.max(x))]
    return " to ".join(dict.fromkeys(ends))


def interpolate(
    interpolation: PyTree, interval_length: float, t: Depth
) -> Float[Array, "*batch tokens features"]:
    """The state at depth `t`, from the stacked interpolations of the intervals."""
    num_intervals = interpolation.ts.shape[0]
    t = jnp.asarray(t, interpolation.ts.dtype)
    index = jnp.clip(jnp.floor(t / interval_length), 0, num_intervals - 1).astype(int)
    inside = jax.tree.map(lambda x: x[index], interpolation)
    # Rounding may put a boundary just outside.
    return inside.evaluate(jnp.clip(t, inside.ts[0], inside.ts[inside.ts_size - 1]))
