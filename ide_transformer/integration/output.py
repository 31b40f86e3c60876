"""The requested output of a solve, the outcome of its steps, and the solution."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree

from ..arguments import checked, is_known
from ..equation import AbstractNormalization, Depth, Equation, State, listing, parts, spell
from ..errors import InputError
from ..solvers import Evaluations, evaluation_count, first_failure


class Output(NamedTuple):
    """The requested output, known at compile time."""

    # Depths of the states in the solution.
    depths: tuple[float, ...]
    # Whether states at the ends of intervals are needed, whether interpolations are needed, and
    # whether the solution keeps the interpolations.
    states: bool
    dense: bool
    interpolation: bool
    # The solution keeps `read(t, u, args)` of each state.
    read: Callable[[Array, Array, PyTree], PyTree]
    # Whether a failure is an error.
    throw: bool

    def require_interval_ends(self, where: str) -> None:
        """Raises `InputError` if states inside intervals are requested."""
        if self.dense:
            raise InputError(
                f"solve: {where} has states at the ends of intervals only; use "
                "SaveAt(ts=equation.knots)."
            )


class Start(NamedTuple):
    """The initial state, the arguments of the field, and the requested output."""

    u0: State
    args: PyTree
    output: Output


def parse_saveat(
    equation: Equation, saveat: diffrax.SaveAt, steps_per_interval: int | None, *, throw: bool
) -> Output:
    """The output that `saveat` requests. `steps_per_interval` is `None` for adaptive steps."""
    subs = diffrax.SubSaveAt(t1=True) if saveat.subs is None else saveat.subs
    memory = saveat.solver_state or saveat.controller_state or saveat.made_jump
    is_plain = isinstance(subs, diffrax.SubSaveAt) and not memory
    if not is_plain or (subs.steps and steps_per_interval is None):
        raise InputError(
            f"solve: got {saveat}; use only t0, t1, ts, fn, dense and, for equal steps, steps."
        )
    try:
        ts = np.asarray(() if subs.ts is None else subs.ts, dtype=float)
    except jax.errors.TracerArrayConversionError as error:
        raise InputError(
            "solve: saveat.ts must be known at compile time; use SaveAt(dense=True) and "
            "Solution.evaluate."
        ) from error
    # diffrax rounds depths to float32, which can exceed the horizon.
    nearest = equation.knots[abs(equation.knots - ts[..., None]).argmin(axis=-1)]
    inner = np.where(np.isclose(ts, nearest, rtol=1e-6, atol=0), nearest, ts).tolist()
    if np.ndim(inner) != 1 or not all(0 <= t <= equation.horizon for t in inner):
        raise InputError(
            f"solve: saveat.ts={inner} must be depths in [0, {equation.horizon:g}]."
        )
    steps: list[float] = []
    if subs.steps:
        n = steps_per_interval or 1
        offsets = equation.control.interval_length * (np.arange(n) / n)
        # In this form steps end at boundaries exactly.
        edges = np.append(np.add.outer(equation.knots[:-1], offsets), equation.horizon)
        steps = edges[int(subs.steps) :: int(subs.steps)].tolist()
    end = [equation.horizon] if subs.t1 and equation.horizon not in steps else []
    depths = (*([0.0] if subs.t0 else []), *inner, *steps, *end)
    on_knots = bool(np.isin(depths, equation.knots).all())
    return Output(
        depths,
        states=on_knots and depths != (equation.horizon,),
        dense=saveat.dense or not on_knots,
        interpolation=saveat.dense,
        read=subs.fn,
        throw=throw,
    )


# The names of failures that errors distinguish; others count as the first.
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


def finite(u: ArrayLike) -> diffrax.RESULTS:
    """`successful` if a state is finite, else `nonfinite`."""
    results: Any = diffrax.RESULTS
    return results.where(jnp.all(jnp.isfinite(u)), results.successful, results.nonfinite)


class Status(NamedTuple):
    """The first failure of a march and its depth, which is infinite if there is none."""

    result: diffrax.RESULTS
    failed_at: Float[Array, ""]

    @classmethod
    def start(cls, dtype: np.dtype) -> "Status":
        return cls(finite(0.0), jnp.array(jnp.inf, dtype))

    def after(self, result: diffrax.RESULTS, u: Array, depth: Array) -> "Status":
        result = first_failure(result, finite(u))
        failed_at = jnp.where(
            result == diffrax.RESULTS.successful, jnp.inf, jnp.minimum(self.failed_at, depth)
        )
        return Status(result, failed_at)


class Trajectory(NamedTuple):
    """The outcome of a march: its last state, states at the ends of intervals, and counts."""

    u1: State
    states: Float[Array, "intervals *batch tokens features"] | None
    interpolation: diffrax.DenseInterpolation | None
    status: Status
    steps: Int[Array, ""] | int
    rejected: Int[Array, ""] | int
    field_evaluations: Float[Array, "..."] | float

    def raise_on_failure(self, equation: Equation) -> State:
        """`u1`; raises an error that says how and where the solve failed, if it did."""
        result, failed_at = self.status
        failures = {name: getattr(diffrax.RESULTS, name) for name in _FAILURES}
        kind = jnp.argmax(jnp.stack([result == failure for failure in failures.values()]))
        # In single precision a depth may be past the end of its interval.
        ends = jnp.asarray(equation.knots[1:]) + 1e-3 * equation.control.interval_length
        inside = jnp.searchsorted(ends, failed_at)
        singular = any(x.eps == 0 for x in parts(equation.constraint, AbstractNormalization))
        hint = "If a token is constant, set eps=1e-5 in the constraint. " if singular else ""
        messages = [
            f"solve failed between depths {start:g} and {end:g} of {equation.horizon:g} with "
            f"{name}. {diffrax.RESULTS[failure]} {hint if name == 'nonfinite' else ''}Use "
            "smaller steps, or pass throw=False to solve and look at result, failed_at and us."
            for start, end in itertools.pairwise(equation.knots)
            for name, failure in failures.items()
        ]
        failed = result != diffrax.RESULTS.successful
        index = jnp.where(failed, inside * len(_FAILURES) + kind, 0)
        return eqx.branched_error_if(self.u1, failed, index, messages)


def field_evaluations(
    cost: Evaluations | None, steps: Array | int, starts: Array | int, counted: PyTree
) -> Float[Array, "..."] | float:
    """The evaluations of a solve: steps times `cost`, else those `counted`, else NaN."""
    if cost is not None:
        return steps * cost.following + starts * (cost.first - cost.following)
    evaluations = evaluation_count(counted)
    return jnp.nan if evaluations is None else evaluations.count


@checked
class Solution(eqx.Module):
    """The solution of an equation.

    **Attributes:**

    - `u1`: `[..., tokens, features]`, the state at depth T, or where a failed solve stopped.
    - `ts`, `us`: the requested depths, and the states there, `[depths, ..., tokens, features]`;
      with `SaveAt(fn=…)` its values.
    - `stats`: a dictionary with `steps`, `accepted`, `rejected`; `field_evaluations`; and
      `constraint_residual`, the largest distance of a token at T from the set of the last
      operator (`AbstractConstraint.residual`). One evaluation is every operator once, or a
      product with the Jacobian. Implicit schemes count accepted steps only; with a root finder
      of their own the count is NaN.
    - `result`: how the solve ended, one of `diffrax.RESULTS`.
    - `failed_at`: the depth of a failure, infinite without one.

    If each sample has its own steps, the last three have an entry for each sample.
    """

    u1: State
    ts: Float[Array, " depths"]
    us: PyTree[Array]
    stats: dict[str, Any]
    result: diffrax.RESULTS
    failed_at: Float[Array, "*samples"]
    # The interpolations of all intervals, stacked.
    interpolation: diffrax.DenseInterpolation | None
    interval_length: float = eqx.field(static=True)

    def __repr__(self) -> str:
        shapes = {name: spell(getattr(self, name)) for name in ("u1", "ts", "us")}
        counts = {name.replace("_", " "): _range(x) for name, x in self.stats.items()}
        status = "not known yet"
        if is_known(self.failed_at):
            status = "succeeded"
            failed = np.isfinite(self.failed_at).ravel()
            if failed.any():
                first = jax.tree.map(lambda x: jnp.ravel(x)[failed.argmax()], self.result)
                samples = f"{failed.sum()} of {failed.size} samples " if failed.size > 1 else ""
                depth = np.min(self.failed_at)
                status = f"{samples}failed at depth {depth:g}: {diffrax.RESULTS[first]}"
        return listing(self, {"status": status, **shapes, **counts})

    @property
    def succeeded(self) -> Bool[Array, "*samples"]:
        return self.result == diffrax.RESULTS.successful

    @checked
    def evaluate(self, t: Depth) -> State:
        """The state at any depth `t ∈ [0, T]`; needs `saveat=diffrax.SaveAt(dense=True)`.
        Outside it raises `InputError`, or returns NaN if t is traced."""
        if self.interpolation is None:
            raise InputError("Solution.evaluate needs saveat=diffrax.SaveAt(dense=True).")
        horizon = self.interpolation.ts.shape[0] * self.interval_length
        outside = (t < 0) | (t > horizon)
        if is_known(t) and np.any(outside):
            raise InputError(f"Solution.evaluate: {t=} is outside [0, {horizon:g}].")
        state = interpolate(self.interpolation, self.interval_length, t)
        return jnp.where(outside, jnp.nan, state)


def _range(x: Any) -> str:
    """Prints a number, or the smallest and largest one over samples."""
    if not is_known(x) or not np.size(x):
        return spell(x)
    ends = [f"{end:,.{15 if end == np.round(end) else 3}g}" for end in (np.min(x), np.max(x))]
    return " to ".join(dict.fromkeys(ends))


def interpolate(interpolation: PyTree, interval_length: float, t: Depth) -> State:
    """The state at depth `t`, from the stacked interpolations of the intervals."""
    layers = interpolation.ts.shape[0]
    t = jnp.asarray(t, interpolation.ts.dtype)
    index = jnp.clip(jnp.floor(t / interval_length), 0, layers - 1).astype(int)
    inside = jax.tree.map(lambda x: x[index], interpolation)
    # Rounding may put a boundary just outside.
    return inside.evaluate(jnp.clip(t, inside.ts[0], inside.ts[inside.ts_size - 1]))
