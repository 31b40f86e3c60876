"""Costates: what the loss feels of states and weights."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..equation import AbstractSourcedOperator, Equation, map_parts, with_fields
from ..models import Model
from .layers import stacked_intervals
from .march import March, over_interval, square, step_ends


# What the outputs are judged by: a loss of the whole batch, or a number for each sample.
Judged = Callable[[PyTree[Array]], Float[Array, "..."]]


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
