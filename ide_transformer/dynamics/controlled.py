"""A solve seen as a controlled system: its costates, and the pushes of least energy that steer
it."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..arguments import PositiveInt, is_known
from ..equation import AbstractSourcedOperator, Equation, map_parts, with_fields
from ..errors import InputError
from ..models import Model
from .layers import stacked_intervals
from .march import March, over_interval, step_ends
from .meshes import square


# What the outputs are judged by: a loss of the whole batch, or a number for each sample.
Judged = Callable[[PyTree[Array]], Float[Array, "..."]]

# The parts of a step that are tried; the last one is the correction alone.
_SIZES = (*(0.5**k for k in range(8)), 0.0)
# The energy of pushes stays below this many times that of the states.
_LARGEST = 100


class Costates(NamedTuple):
    """Sensitivities of a loss J of the outputs: to the states u(t_l) and to the weights θ(t) at
    the interval boundaries `t_0 = 0, …, t_L = T`.

    - `states`: u(t_l), `[L + 1, *batch, tokens, features]`.
    - `costates`: `p_l = ∂J / ∂u(t_l)`, of the same shape; of the discrete march, so that they
      are exact gradients.
    - `hamiltonian`: `⟨p_l, A_i(u_l; θ(t_l))⟩`, `[L, operators]`, tangential to the constraint.
      The sum over operators is H(t_l), which in the limit of small steps is the same at all
      depths where θ is, and `-dJ/dh` of a layer of length h that is made shorter.
    - `stationarity`: `|∂/∂θ_i ⟨p_l, A_i(u_l; θ(t_l))⟩|`, `[L, operators]`, which vanishes where
      the weights of a layer are optimal. Of functions of features θ are the matrices at their
      points, not the coefficients that are learned.

    Where the initial state is off the constraint, the last two take at t_0 the state and the
    costate at 0+, the projection of u_0 and the costate of a march that begins there;
    `LayerNorm` and `RMSNorm` are no projections, and leave u_0 and p_0 as they are.

    Reference: Pontryagin's principle, as in Li, Chen, Tai, E, arXiv 1710.09513.
    """

    states: Float[Array, "knots *batch tokens features"]
    costates: Float[Array, "knots *batch tokens features"]
    hamiltonian: Float[Array, "intervals operators"]
    stationarity: Float[Array, "intervals operators"]


@eqx.filter_jit
def costates(model: Model, inputs: PyTree[ArrayLike], loss: Judged) -> Costates:
    """The costates of a batch of inputs.

    **Arguments:**

    - `loss`: from the outputs to a number.
    """
    march = March.of("costates", model, inputs)

    def objective(pushes):
        states = march.states(pushes)
        return loss(model.outputs(states[-1])), states

    p, states = jax.grad(objective, has_aux=True)(march.no_pushes)
    equation = march.equation
    weights = stacked_intervals(equation.control)
    equation = Equation(weights, equation.constraint, equation.domain)

    def one(given):
        index, interval, u, costate = given

        def hamiltonians(interval):
            terms = equation.interval_terms(index, interval).terms
            start = index * equation.control.interval_length
            found = jnp.stack([jnp.sum(costate * term.vf(start, u, None)) for term in terms])
            # Each depends on the weights of its own operator alone.
            return jnp.sum(found), found

        (slopes, _), found = eqx.filter_grad(hamiltonians, has_aux=True)(interval)
        # A source is no weight.
        slopes = map_parts(
            slopes,
            AbstractSourcedOperator,
            lambda operator, _: with_fields(operator, source=None, source_domain=None),
        )
        return found, jnp.sqrt(jnp.stack([*map(square, slopes)]))

    terms = march.equation.terms_of(0)
    ends = step_ends(march.equation, 0.0, march.steps)
    begin = march.on_constraint()
    _, pull = jax.vjp(
        lambda u: over_interval(march.solver, terms, ends, u).astype(u.dtype), begin
    )
    us = states[:-1].at[0].set(begin)
    ps = p[:-1].at[0].set(pull(p[1])[0])
    numbers = jnp.arange(equation.control.layers, dtype=states.dtype)
    given = numbers, equation.intervals(), us, ps
    return Costates(states, p, *jax.lax.map(one, given))


class Steering(NamedTuple):
    """Pushes that steer a solve, for each sample.

    - `pushes`: v, `[L, *batch, tokens, features]`: v_l enters the equation in interval l,
      `u_t = Σ_i A_i(u; θ(t)) + v_l`, as `h v_l` after its steps.
    - `energy`: `Σ_l h |v_l|²`, `[*batch]`.
    - `reached`: the value of what is steered, `[*batch]`.
    """

    pushes: Float[Array, "intervals *batch tokens features"]
    energy: Float[Array, "*batch"]
    reached: Float[Array, "*batch"]


def steer(
    model: Model,
    inputs: PyTree[ArrayLike],
    judged: Judged,
    level: float,
    *,
    intervals: Sequence[int] | None = None,
    iterations: PositiveInt = 40,
) -> Steering:
    """The pushes v of least energy, with which a value g of the outputs comes to a level,

        min_v ½ Σ_l h |v_l|²,   g(outputs(v)) = level,

    by Gauss–Newton steps: g is linearised by its costates, `g(v) + Σ_l h ⟨p_l, δ_l⟩`, whose
    solution of least energy is along them, `v_l = λ p_l`. A step is halved again and again,
    and each of these is corrected along the costates by the distance of its g from the level.
    The one with the least `½ Σ_l h |v_l|² + 2 |λ| |g - level|` is taken. In the first half of
    the steps the level moves evenly from g(0) to its value, so that pushes stay small.

    Reference: the correction of second order is that of Fletcher, *Second order corrections for
    non-differentiable optimization*, 1982.

    **Arguments:**

    - `judged`: from the outputs to g, one for each sample, `[*batch]`; take one that is nearly
      linear, such as the logarithm of odds, see `log_odds`.
    - `level`: one that no state gives, such as odds that a token never has, is not reached;
      the pushes then stay below ten times the size of the states.
    - `intervals`: those in which v may act; all by default.

    **Raises:** `InputError` for intervals that are not there, adaptive steps, and a scheme that
    carries something from interval to interval. A level that is not reached is no error: see
    `reached`.
    """
    number = model.layers
    chosen = range(number) if intervals is None else intervals
    if not len(chosen) or not set(chosen) <= set(range(number)):
        raise InputError(
            f"steer: intervals={list(chosen)} must be some of 0 to {number - 1}, one at least."
        )
    acts = jnp.zeros(number).at[jnp.array(list(chosen))].set(1.0)
    return _steered(model, inputs, judged, jnp.asarray(level), acts, iterations)


@eqx.filter_jit
def _steered(model, inputs, judged, level, acts, iterations) -> Steering:
    march = March.of("steer", model, inputs)
    h = march.equation.control.interval_length
    zeros = march.no_pushes
    acts = acts.astype(zeros.dtype).reshape(-1, *[1] * (zeros.ndim - 1))
    sizes = jnp.array(_SIZES, zeros.dtype)

    def total(v):
        """The sum over samples, each of which sees its own pushes alone."""
        found = judged(model.outputs(march.states(zeros.at[1:].set(h * acts * v))[-1]))
        return jnp.sum(found), found

    def dot(v, w):
        return h * jnp.sum(v * w, axis=(0, -2, -1))

    native = total(zeros[1:])[1]
    states = march.states(zeros)[1:]
    largest = _LARGEST * dot(states, states)

    def step(v, share):
        wanted = native + share * (level.astype(zeros.dtype) - native)
        slope, value = jax.grad(total, has_aux=True)(v)
        costate = slope / h
        square = dot(costate, costate)
        square = jnp.where(square > 0, square, 1.0)
        multiplier = (wanted - value + dot(costate, v)) / square
        change = multiplier[None, ..., None, None] * costate - v

        def tried(size):
            """The push, corrected, and its merit."""
            pushed = v + size * change
            correction = (wanted - total(pushed)[1]) / square
            pushed += correction[None, ..., None, None] * costate
            energy = dot(pushed, pushed)
            merit = 0.5 * energy + 2 * jnp.abs(multiplier * (total(pushed)[1] - wanted))
            return pushed, jnp.where(energy < largest, merit, jnp.inf)

        pushes, merits = jax.lax.map(tried, sizes)
        best = jnp.argmin(merits, axis=0)
        found = jnp.take_along_axis(pushes, best[None, None, ..., None, None], axis=0)[0]
        small = jnp.min(merits, axis=0) < jnp.inf
        return jnp.where(small[None, ..., None, None], found, v), None

    shares = jnp.minimum(2 * jnp.arange(1, iterations + 1) / iterations, 1.0)
    v, _ = jax.lax.scan(step, zeros[1:], shares.astype(zeros.dtype))
    return Steering(v, dot(v, v), total(v)[1])


def log_odds(
    logits: Float[Array, "*batch classes"], target: ArrayLike
) -> Float[Array, "*batch"]:
    """`log p/(1 - p)` of a class or token, `target` one or one for each sample. A probability
    of 0.9 is 2.197."""
    classes = logits.shape[-1]
    if is_known(target) and not (np.min(target) >= 0 and np.max(target) < classes):
        raise InputError(
            f"log_odds: target={np.asarray(target).tolist()}: there are {classes} classes; "
            f"give 0 to {classes - 1}."
        )
    chosen = jnp.broadcast_to(jax.nn.one_hot(target, classes, dtype=bool), logits.shape)
    one, others = (
        jax.nn.logsumexp(jnp.where(where, logits, -jnp.inf), axis=-1)
        for where in (chosen, ~chosen)
    )
    return one - others
