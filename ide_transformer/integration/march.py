"""Fixed steps: a scan over the intervals, their weights passed as its inputs."""

from collections.abc import Callable
from typing import NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..equation import Equation
from ..solvers import (
    AbstractCoupling,
    Couplings,
    Evaluations,
    count_evaluations,
    evaluations_made,
    finite,
    first_failure,
    success,
)
from .checks import check_reversible
from .gradients.gradient import AbstractGradient
from .gradients.reversible import Inputs, Reversible, march_reversibly, reversible_inputs


class Trajectory(NamedTuple):
    """What both kinds of solve return to `solve`."""

    u1: Float[Array, "*batch tokens features"]
    # The state at the end of each interval, if asked for.
    states: Float[Array, "intervals *batch tokens features"] | None
    # One interpolation for each interval, stacked, if asked for.
    interpolation: diffrax.DenseInterpolation | None
    result: diffrax.RESULTS
    failed_at: Float[Array, ""]
    steps: Int[Array, ""] | int
    rejected: Int[Array, ""] | int
    field_evaluations: Float[Array, ""] | float


# Blocks tabulated for each interval; a longer table takes more memory than it saves time.
_MOST_POINTS = 8


class Steps(NamedTuple):
    """The steps of a march.

    - `equation`: what is smooth in depth is evaluated ahead, where the steps need it.
    - `offsets`: of the ends of the steps from the beginning of their interval.
    - `jumps`: whether the field jumps at the beginning of a step.
    - `cost`: of a step, `None` where it depends on the state.
    """

    equation: Equation
    offsets: Float[np.ndarray, " ends"]
    jumps: Bool[np.ndarray, " steps"]
    cost: Evaluations | None

    @property
    def starts(self) -> int:
        """Steps of the whole march before which the field jumps, the first one included."""
        intervals = self.equation.control.num_intervals
        return 1 if self.equation.continuous else intervals

    @property
    def steps(self) -> int:
        return self.equation.control.num_intervals * len(self.jumps)

    @property
    def indices(self) -> Float[Array, " intervals"]:
        return jnp.arange(self.equation.control.num_intervals, dtype=self.offsets.dtype)


def march(
    equation: Equation,
    u0: Float[Array, "*batch tokens features"],
    *,
    solver: diffrax.AbstractSolver,
    steps_per_interval: int,
    gradient: AbstractGradient,
    args: PyTree,
    keep_states: bool,
    dense: bool,
    throw: bool,
) -> Trajectory:
    """`steps_per_interval` equal steps in each interval.

    The scan is over the stacked weights, so the gradient of an interval writes only that
    interval's weights and the program does not grow with the number of intervals.
    """
    grid = steps_of(equation, u0, solver, steps_per_interval)
    if isinstance(gradient, Reversible):
        return _march_reversibly(
            grid,
            u0,
            couplings=check_reversible(equation, solver, dense=dense),
            gradient=gradient,
            args=args,
            keep_states=keep_states,
            throw=throw,
        )

    def interval(carry, inputs):
        u, solver_state, result, failed_at = carry
        index, weights = inputs
        terms = grid.equation.interval_terms(index, weights)
        edges = index * equation.control.interval_length + grid.offsets

        def step(carry, inputs):
            u, solver_state, result = carry
            t0, t1, made_jump = inputs
            u, _, dense_info, solver_state, step_result = solver.step(
                terms, t0, t1, u, args, solver_state, made_jump
            )
            result = first_failure(result, step_result)
            return (u, solver_state, result), dense_info if dense else None

        carry = (u, solver_state, result)
        if steps_per_interval == 1:
            carry, infos = step(carry, (edges[0], edges[1], bool(grid.jumps[0])))
            infos = jax.tree.map(lambda x: x[None], infos)
        elif not grid.jumps.any():
            # Known when the march is compiled, so that no step has to look.
            carry, infos = lax.scan(
                lambda carry, t: step(carry, (*t, False)), carry, (edges[:-1], edges[1:])
            )
        else:
            carry, infos = lax.scan(step, carry, (edges[:-1], edges[1:], grid.jumps))
        u, solver_state, result = carry
        result = first_failure(result, finite(u))
        failed_at = jnp.where(
            result == diffrax.RESULTS.successful, jnp.inf, jnp.minimum(failed_at, edges[-1])
        )
        interpolation = _interpolation(solver, edges, infos, u) if dense else None
        return (u, solver_state, result, failed_at), (
            u if keep_states else None,
            interpolation,
        )

    terms = grid.equation.terms_of(0)
    carry = (
        u0,
        solver.init(terms, grid.offsets[0], grid.offsets[1], u0, args),
        success(),
        jnp.array(jnp.inf, u0.dtype),
    )
    (u1, solver_state, result, failed_at), (states, interpolation) = gradient.scan(
        interval, carry, (grid.indices, grid.equation.intervals())
    )
    return Trajectory(
        u1=u1,
        states=states,
        interpolation=interpolation,
        result=result,
        failed_at=failed_at,
        steps=grid.steps,
        rejected=0,
        field_evaluations=_field_evaluations(grid, solver_state),
    )


def _march_reversibly(
    grid: Steps,
    u0: Float[Array, "*batch tokens features"],
    *,
    couplings: Couplings,
    gradient: Reversible,
    args: PyTree,
    keep_states: bool,
    throw: bool,
) -> Trajectory:
    """The same by the couplings of each step."""
    outputs = march_reversibly(
        reversible_couplings(grid, couplings, args),
        u0,
        reversible_inputs(grid.equation, grid.offsets),
        tolerance=gradient.tolerance,
        keep_states=keep_states,
        throw=throw,
    )
    return Trajectory(
        **outputs._asdict(),
        interpolation=None,
        steps=grid.steps,
        rejected=0,
        field_evaluations=_field_evaluations(grid, None),
    )


def reversible_couplings(
    grid: Steps, couplings: Couplings, args: PyTree
) -> Callable[[Inputs], tuple[AbstractCoupling, ...]]:
    """The couplings of a step as a function of its inputs."""

    def couplings_of(inputs):
        terms = grid.equation.interval_terms(inputs.index, inputs.weights)
        return couplings(terms, inputs.t0, inputs.t1, args, inputs.first)

    return couplings_of


def steps_of(
    equation: Equation, u0: Array, solver: diffrax.AbstractSolver, steps_per_interval: int
) -> Steps:
    """The steps of a march of this equation."""
    block = eqx.filter_eval_shape(equation.control, 0.0)
    cost = count_evaluations(solver, block, u0.shape[-1])
    fractions = np.arange(steps_per_interval + 1) / steps_per_interval
    equation = tabulated(equation, cost, steps_per_interval)
    return Steps(
        equation=equation,
        offsets=(equation.control.interval_length * fractions).astype(u0.dtype),
        # Where the field has jumps, they are at the beginning of intervals.
        jumps=(fractions[:-1] == 0) & (not equation.continuous),
        cost=cost,
    )


def tabulated(
    equation: Equation, cost: Evaluations | None, steps_per_interval: int
) -> Equation:
    """The equation made ready for a march whose steps have this cost."""
    if cost is None:
        return equation
    starts = np.arange(steps_per_interval)[:, None]
    # The fractions of an interval at which the field is evaluated.
    points = (starts + np.array(cost.fractions)) / steps_per_interval
    points = np.unique(points.round(14))
    if len(points) > _MOST_POINTS:
        return equation
    return equation.tabulate(points, np.arange(steps_per_interval + 1) / steps_per_interval)


def _field_evaluations(grid: Steps, solver_state: PyTree) -> Array | float:
    """Of a whole march: steps times their cost, or what an implicit scheme has counted; NaN
    where it has not."""
    if grid.cost is not None:
        first, following = grid.starts, grid.steps - grid.starts
        return first * grid.cost.first + following * grid.cost.following
    made = evaluations_made(solver_state)
    return jnp.nan if made is None else made.count


def _interpolation(solver, edges, infos, u) -> diffrax.DenseInterpolation:
    return diffrax.DenseInterpolation(
        ts=edges,
        ts_size=jnp.array(len(edges)),
        infos=infos,
        interpolation_cls=solver.interpolation_cls,
        direction=jnp.array(1),
        t0_if_trivial=edges[0],
        y0_if_trivial=jnp.zeros_like(u),
    )
