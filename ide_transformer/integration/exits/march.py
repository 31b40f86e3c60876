"""Fixed steps in which tokens stop."""

from collections.abc import Callable
from typing import NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from ...equation import AbstractConstraint, Free, holding, parts
from ...errors import InputError
from ...solvers import ExplicitRungeKutta, Projected, StepField, first_failure, success
from ..march import Steps
from ..output import Start
from ..trajectory import Status, Trajectory
from .exit import AbstractExit, Progress


class _State(NamedTuple):
    """A march between two steps.

    - `increment`: of the last step that a token made.
    - `hits`: how often in a row the measure of a token was below the tolerance.
    - `steps`: those that a token has made.
    """

    u: Float[Array, "*batch tokens features"]
    increment: Float[Array, "*batch tokens features"]
    hits: Int[Array, "*batch tokens"]
    steps: Int[Array, "*batch tokens"]
    result: diffrax.RESULTS


def march_until(
    steps: Steps,
    start: Start,
    scan: Callable,
    exit: AbstractExit,
    read_out: Callable[[Array], PyTree[Array]],
) -> Trajectory:
    """All steps of a plan, each for the tokens that have not stopped. Where all have stopped
    nothing is computed. `field_evaluations` has the number of each token, `[..., tokens]`.

    **Raises:** `InputError` for a scheme that carries something from step to step, and for
    output between the ends of the intervals.
    """
    u0, args, output = start
    cost = _cost_of_a_step(steps, start, exit)
    tokens, total = u0.shape[:-1], steps.number * steps.equation.control.num_intervals
    weights = steps.equation.domain.weights
    weights = jnp.ones(tokens[-1:], u0.dtype) if weights is None else weights

    def rest(state):
        """The states of tokens that have stopped, after one more step."""
        return state.u + state.increment if exit.order else state.u

    def advance(state, terms, t0, t1, remaining):
        moving = state.hits < exit.hits
        field = StepField(holding(terms, moving), t0, t1, args)
        step = field.first_step(steps.solver, state.u)
        increment = jnp.where(moving[..., None], step.y1 - state.u, state.increment)
        u = jnp.where(moving[..., None], step.y1, rest(state))
        progress = Progress(u, increment, state.increment, remaining, read_out)
        hits = jnp.where(exit.below(progress, weights), state.hits + 1, 0)
        return _State(
            u,
            increment,
            hits=jnp.where(moving, hits, state.hits),
            steps=state.steps + moving,
            result=first_failure(state.result, step.result),
        )

    def interval(carry, inputs):
        state, status = carry
        index, block = inputs
        terms = steps.equation.interval_terms(index, block)
        edges = steps.edges(index)

        def step(state, inputs):
            t0, t1, number = inputs
            remaining = total - (index * steps.number + number)
            return lax.cond(
                jnp.any(state.hits < exit.hits),
                lambda state: advance(state, terms, t0, t1, remaining),
                lambda state: state._replace(u=rest(state)),
                state,
            ), None

        numbers = jnp.arange(1, steps.number + 1, dtype=u0.dtype)
        state, _ = lax.scan(step, state, (edges[:-1], edges[1:], numbers))
        status = status.after(state.result, state.u, edges[-1])
        return (state, status), state.u if output.states else None

    zeros = jnp.zeros(tokens, int)
    state = _State(u0, jnp.full_like(u0, jnp.nan), zeros, zeros, success())
    (state, status), states = scan(
        interval,
        (state, Status.start(steps.dtype)),
        (steps.indices, steps.equation.intervals()),
    )
    evaluations = state.steps.astype(u0.dtype) * cost
    return Trajectory(state.u, states, None, status, total, 0, evaluations)


def _cost_of_a_step(steps: Steps, start: Start, exit: AbstractExit) -> float:
    """The field evaluations of a step that is made from the state alone.

    **Raises:** `InputError` where there is no such step, or for dense output.
    """
    name, solver = type(exit).__name__, steps.solver
    if start.output.dense:
        raise InputError(
            f"solve: exit={name}(…): a solve in which tokens stop has its states at the ends "
            "of the intervals only; ask for SaveAt(ts=equation.knots) and no dense output."
        )
    sets = parts(eqx.filter_eval_shape(steps.equation.constraint, 0.0), AbstractConstraint)
    bound = next((type(x).__name__ for x in sets if not isinstance(x, Free)), None)
    if exit.order and bound is not None:
        raise InputError(
            f"solve: exit={name}(…, order=1): a token that goes straight on leaves the "
            f"constraint {bound}; give order=0, with which it stays."
        )
    terms = steps.equation.terms_of(0)
    state = eqx.filter_eval_shape(steps.init, terms, start.u0, start.args)
    inside = solver.solver if type(solver) is Projected else solver
    # The rate that a method reuses can be computed again.
    reuses = type(inside) is ExplicitRungeKutta
    if steps.cost is None or (jax.tree.leaves(state) and not reuses):
        reason = (
            "evaluates the field as often as the state needs"
            if steps.cost is None
            else "carries something from step to step"
        )
        raise InputError(
            f"solve: exit={name}(…): {type(inside).__name__} {reason}, so a token cannot stop "
            "by itself; take a scheme whose steps see the present state alone, for example "
            "LieTrotter(), Strang() or RK4()."
        )
    return steps.cost.first
