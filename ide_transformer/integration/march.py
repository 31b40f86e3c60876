"""Fixed steps: a scan over the intervals and their weights."""

from collections.abc import Callable
from typing import NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PyTree

from .. import solvers
from ..equation import Equation, State, operator_fields, without_constraint
from ..errors import InputError
from .output import Start, Status, Trajectory, field_evaluations


# The most tabulated blocks per interval; larger tables cost more memory than they save time.
_MOST_POINTS = 8


class Carry(NamedTuple):
    u: State
    solver_state: PyTree
    result: diffrax.RESULTS


class Steps(eqx.Module):
    """A fixed-step solve.

    - `scheme`: the scheme that was passed; `solver`: the prepared scheme that runs.
    - `steps_per_interval`: the number of steps in each interval.
    - `cost`: the evaluations of a step; `None` if they depend on the state.
    """

    equation: Equation
    scheme: diffrax.AbstractSolver
    solver: diffrax.AbstractSolver
    steps_per_interval: int = eqx.field(static=True)
    cost: solvers.Evaluations | None = eqx.field(static=True)
    dtype: np.dtype = eqx.field(static=True)

    @property
    def name(self) -> str:
        return type(self.scheme).__name__

    @property
    def offsets(self) -> Float[np.ndarray, " ends"]:
        """The ends of the steps inside an interval, from its beginning."""
        fractions = np.arange(self.steps_per_interval + 1) / self.steps_per_interval
        return (self.equation.control.interval_length * fractions).astype(self.dtype)

    @property
    def indices(self) -> Float[Array, " intervals"]:
        return jnp.arange(self.equation.control.layers, dtype=self.dtype)

    def edges(self, index: Float[Array, ""]) -> Float[Array, " ends"]:
        return index * self.equation.control.interval_length + self.offsets

    def init(self, terms: PyTree, u0: Array, args: PyTree) -> PyTree:
        return self.solver.init(terms, self.offsets[0], self.offsets[1], u0, args)

    def advance(
        self, terms: PyTree, edges: Array, carry: Carry, args: PyTree, *, dense=False, loop=True
    ) -> tuple[Carry, PyTree]:
        """Makes the steps of one interval, in a loop or unrolled. `dense` adds the data of
        interpolations."""

        def step(carry, inputs):
            t0, t1, made_jump = inputs
            u, state, result = carry
            new = solvers.StepField(terms, t0, t1, args).step(self.solver, u, state, made_jump)
            result = solvers.first_failure(result, new.result)
            return Carry(new.y1, new.solver_state, result), new.dense_info if dense else None

        # The field jumps at the beginning of an interval.
        jumps = (np.arange(self.steps_per_interval) == 0) & (not self.equation.continuous)
        if self.steps_per_interval == 1 or not loop:
            infos = []
            for i, jump in enumerate(jumps):
                carry, info = step(carry, (edges[i], edges[i + 1], bool(jump)))
                infos.append(info)
            return carry, jax.tree.map(lambda *x: jnp.stack(x), *infos)
        ends = edges[:-1], edges[1:]
        if jumps.any():
            return lax.scan(step, carry, (*ends, jumps))
        # A constant, so that no step tests it.
        return lax.scan(lambda carry, t: step(carry, (*t, False)), carry, ends)

    def trajectory(
        self,
        u1: Array,
        states: Array | None,
        status: Status,
        solver_state: PyTree = None,
        interpolation: diffrax.DenseInterpolation | None = None,
    ) -> Trajectory:
        intervals = self.equation.control.layers
        steps = intervals * self.steps_per_interval
        starts = 1 if self.equation.continuous else intervals
        count = field_evaluations(self.cost, steps, starts, solver_state)
        return Trajectory(u1, states, interpolation, status, steps, 0, count)


def step_cost(
    equation: Equation, solver: diffrax.AbstractSolver, features: int, args: PyTree
) -> solvers.Evaluations | None:
    """The field evaluations of a step; `None` if they depend on the state."""
    block = eqx.filter_eval_shape(lambda: [x.at(0.0, args) for x in equation.control(0.0)])
    return solvers.count_evaluations(solver, block, features)


def plan_steps(
    equation: Equation,
    scheme: diffrax.AbstractSolver,
    steps_per_interval: int,
    state: Array | jax.ShapeDtypeStruct,
    args: PyTree = None,
) -> Steps:
    """Prepares the scheme of a march, and evaluates smooth weights in advance."""
    check_scheme(equation, scheme, steps_per_interval)
    solver = solvers.prepare_solver(scheme, equation.constraint, unroll=True)
    cost = step_cost(equation, solver, state.shape[-1], args)
    if cost is not None and steps_per_interval <= _MOST_POINTS:
        starts = np.arange(steps_per_interval)[:, None]
        # The fractions of an interval at which the field is evaluated.
        points = (starts + np.array(cost.fractions)) / steps_per_interval
        points = np.unique(points.round(14))
        if len(points) <= _MOST_POINTS:
            ends = np.arange(steps_per_interval + 1) / steps_per_interval
            equation = equation.tabulate(points, ends)
    return Steps(equation, scheme, solver, steps_per_interval, cost, np.dtype(state.dtype))


def march(steps: Steps, start: Start, scan: Callable) -> Trajectory:
    """Makes all steps by a scan over the stacked weights of the intervals."""
    u0, args, output = start

    def march_interval(carry, inputs):
        u, solver_state, status = carry
        index, weights = inputs
        terms = steps.equation.interval_terms(index, weights)
        edges = steps.edges(index)
        carry = Carry(u, solver_state, status.result)
        (u, solver_state, result), infos = steps.advance(
            terms, edges, carry, args, dense=output.dense
        )
        status = status.after(result, u, edges[-1])
        saved = u if output.states else None
        if not output.dense:
            return (u, solver_state, status), (saved, None)
        interpolation = diffrax.DenseInterpolation(
            ts=edges,
            ts_size=jnp.array(len(edges)),
            infos=infos,
            interpolation_cls=steps.solver.interpolation_cls,
            direction=jnp.array(1),
            t0_if_trivial=edges[0],
            y0_if_trivial=jnp.zeros_like(u),
        )
        return (u, solver_state, status), (saved, interpolation)

    state = steps.init(steps.equation.terms_of(0), u0, args)
    (u1, solver_state, status), (states, interpolation) = scan(
        march_interval,
        (u0, state, Status.start(steps.dtype)),
        (steps.indices, steps.equation.intervals()),
    )
    return steps.trajectory(u1, states, status, solver_state, interpolation)


def check_scheme(
    equation: Equation, solver: diffrax.AbstractSolver, steps_per_interval: int | None
) -> None:
    """Raises `InputError` if a scheme does not fit the equation or its steps, which are
    adaptive if `steps_per_interval` is `None`."""
    control = equation.control
    jumps_at_each = steps_per_interval == 1 < control.layers and not equation.continuous
    if jumps_at_each and solvers.restarts_at_jumps(solver):
        raise InputError(
            f"{type(solver).__name__} restarts where the field jumps, here at every step; use "
            "PiecewiseLinear, or steps_per_interval=2 or more."
        )
    plan = solvers.SolvePlan(
        steps=None if steps_per_interval is None else control.layers * steps_per_interval,
        horizon=control.horizon,
        operators=equation.num_operators,
        continuous=equation.continuous,
    )
    solvers.check_plan(solver, plan)


def check_state(equation: Equation, u0: Array, args: PyTree) -> None:
    """Raises `InputError` if u0 or the rate of an operator has a wrong shape or dtype."""
    tokens = equation.domain.num_tokens
    weights = equation.domain.weights
    shape = (tokens,) if weights is None else weights.shape
    try:
        broadcast = np.broadcast_shapes(u0.shape[:-1], shape)
    except ValueError:
        broadcast = None
    fits = u0.size and u0.shape[-2] == tokens and broadcast == u0.shape[:-1]
    if not fits or u0.dtype not in (jnp.float32, jnp.float64):
        raise InputError(
            f"solve: got u0 {u0.dtype}{[*u0.shape]}, expected float32 or float64 "
            f"[{', '.join(map(str, ('...', *shape)))}, features] for {tokens} tokens, at least "
            "one number. For products in lower precision set compute_dtype of a model."
        )
    block = eqx.filter_eval_shape(equation.control, 0.0)
    fields = operator_fields(without_constraint(equation.terms))
    for operator, field in zip(block, fields, strict=True):
        rate = eqx.filter_eval_shape(field, 0.0, u0, args)
        if rate.shape != u0.shape:
            raise InputError(
                f"solve: the rate of {type(operator).__name__} has shape {rate.shape}, "
                f"expected the shape {u0.shape} of the state."
            )
