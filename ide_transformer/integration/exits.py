"""Exits: when a token stops before the end of a solve."""

import abc
from collections.abc import Callable
from typing import Literal, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from ..arguments import NonNegativeFloat, PositiveInt, checked
from ..equation import AbstractConstraint, Free, holding, parts
from ..errors import InputError
from ..solvers import StepField, first_failure, start_inside, success
from .march import Steps
from .output import Start, Status, Trajectory


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

    def each(
        self, progress: Progress, weights: Float[Array, "*domains tokens"]
    ) -> Float[Array, "*batch tokens"]:
        """The measure by which each token stops: its own, or that of its sample, without
        tokens of weight zero."""
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


@checked
def divergence(
    expected: Float[Array, "*points classes"], given: Float[Array, "*points classes"]
) -> Float[Array, "*points"]:
    """`KL(p ‖ q) = Σ_y p(y) log p(y)/q(y)`, in nats, of the distributions with these logits:
    what the cross-entropy grows by, on average, where q is given and p is right."""
    p, q = (jax.nn.log_softmax(logits) for logits in (expected, given))
    return jnp.sum(jnp.exp(p) * (p - q), axis=-1)


@checked
def relative_difference(
    expected: Float[Array, "samples points *channels"],
    given: Float[Array, "samples points *channels"],
) -> Float[Array, "samples points"]:
    """`|expected - given|` of functions at each point, the norm over channels, in units of the
    root mean square of `|expected|` over the points of the sample."""
    samples, points = expected.shape[:2]
    shape = samples, points, -1
    expected, given = expected.reshape(shape), given.reshape(shape)
    size = jnp.sqrt(jnp.mean(jnp.sum(expected**2, axis=-1), axis=-1, keepdims=True))
    # Nothing is small beside a function that is zero.
    return jnp.linalg.norm(expected - given, axis=-1) / jnp.where(size == 0, 1, size)


class EstimatedExit(AbstractExit):
    """Exit by an estimate of the effect that the rest of the solve has on the outputs,

        d( R(E_{q+1}), R(E_q) ),

    R the read-out and E_p the state at depth T extrapolated with order p, see `Progress.end`.
    E_q, q = `order`, is what the token will have if it stops, and E_{q+1} the better
    approximation of the full solve; as in an embedded pair, their difference estimates the
    error of the lower one. With `divergence` the tolerance is in nats: about the mean by which
    the loss of a token that stops may grow.

    Both come from the last two steps, so no field is evaluated for them. They cost two
    read-outs for each step: little with a small vocabulary, more than a layer with a large
    one. Reference for embedded pairs: Hairer, Nørsett, Wanner, Solving Ordinary Differential
    Equations I, section II.4.

    **Arguments:** see `AbstractExit`, and

    - `difference`: d, a function of the outputs that are expected and those that are given:
      `divergence` of logits, `relative_difference` of functions, or one of yours.
    """

    order: Literal[0, 1] = eqx.field(static=True, default=1)
    difference: Callable[[Array, Array], Array] = eqx.field(static=True, default=divergence)

    def measure(self, progress: Progress) -> Float[Array, "*batch tokens"]:
        orders = self.order + 1, self.order
        expected, given = (progress.read_out(progress.end(order)) for order in orders)
        return self.difference(expected, given)


class _State(NamedTuple):
    """A march between two steps."""

    u: Float[Array, "*batch tokens features"]
    # Of the last step that a token made.
    increment: Float[Array, "*batch tokens features"]
    # How often in a row the measure of a token was below the tolerance, and its steps made.
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
    nothing is computed. `field_evaluations` has the number of each token, `[..., tokens]`."""
    u0, args, output = start
    cost = _cost_of_a_step(steps, start, exit)
    tokens, total = u0.shape[:-1], steps.number * steps.equation.control.num_intervals
    weights = steps.equation.domain.weights
    weights = jnp.ones(tokens[-1:], u0.dtype) if weights is None else weights

    def rest(state):
        # Of tokens that have stopped, after one more step.
        return state.u + state.increment if exit.order else state.u

    def advance(state, terms, t0, t1, remaining):
        moving = state.hits < exit.hits
        field = StepField(holding(terms, moving), t0, t1, args)
        step = field.first_step(steps.solver, state.u)
        increment = jnp.where(moving[..., None], step.y1 - state.u, state.increment)
        u = jnp.where(moving[..., None], step.y1, rest(state))
        progress = Progress(u, increment, state.increment, remaining, read_out)
        below = exit.each(progress, weights) < exit.tolerance
        hits = jnp.where(below, state.hits + 1, 0)
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
    """The field evaluations of a step; refuses one that is not made from the state alone."""
    where = f"solve: exit={type(exit).__name__}(…)"
    if start.output.dense:
        raise InputError(
            f"{where}: where tokens stop, states are known at the ends of intervals only; ask "
            "for SaveAt(ts=equation.knots) and no dense output."
        )
    sets = parts(eqx.filter_eval_shape(steps.equation.constraint, 0.0), AbstractConstraint)
    bound = next((type(x).__name__ for x in sets if not isinstance(x, Free)), None)
    if exit.order and bound is not None:
        raise InputError(
            f"{where}: a token that goes straight on leaves the constraint {bound}; give "
            "order=0, with which it stays."
        )
    if steps.cost is None:
        raise InputError(
            f"{where}: {steps.name} evaluates the field as often as the state needs, so no "
            "token can stop by itself; take an explicit scheme, for example RK4()."
        )
    field = StepField(steps.equation.terms_of(0), *steps.offsets[:2], start.args)
    start_inside(where, steps.given, field, start.u0, "LieTrotter() or RK4()")
    return steps.cost.first
