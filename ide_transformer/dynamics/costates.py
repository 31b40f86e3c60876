"""Costates: sensitivities of a loss to states and weights."""

import functools as ft
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


# From outputs to a loss of the batch, or a number for each sample.
Judged = Callable[[PyTree[Array]], Float[Array, "..."]]


class Costates(NamedTuple):
    """Sensitivities of a loss J of the outputs to the states u(t_l) and the weights θ(t) at the
    interval boundaries `t_0 = 0, …, t_L = T`.

    - `states`: u(t_l), `[L + 1, *batch, tokens, features]`.
    - `costates`: `p_l = ∂J / ∂u(t_l)` of the discrete march, in the same shape.
    - `hamiltonian`: `⟨p_l, A_i(u_l; θ(t_l))⟩`, `[L, operators]`, tangential to the constraint.
      Its sum over operators is `-dJ/dh` for a layer of length h. For constant θ it is constant
      in depth in the limit of small steps.
    - `stationarity`: `|∂/∂θ_i ⟨p_l, A_i(u_l; θ(t_l))⟩|`, `[L, operators]`, zero for optimal
      weights of a layer. With a `space`, θ are the matrices, not the coefficients.

    At t_0 the last two take the state and the costate at 0+, after the projection of u_0 on
    the constraint, except for `LayerNorm` and `RMSNorm`, which are not projections.

    Reference: Pontryagin's principle, as in Li, Chen, Tai, E, arXiv 1710.09513.
    """

    states: Float[Array, "knots *batch tokens features"]
    costates: Float[Array, "knots *batch tokens features"]
    hamiltonian: Float[Array, "intervals operators"]
    stationarity: Float[Array, "intervals operators"]


@eqx.filter_jit
def costates(model: Model, inputs: PyTree[ArrayLike], loss: Judged) -> Costates:
    """The costates of a batch of inputs; `loss` is a function of the outputs."""
    march = March.of("costates", model, inputs)

    def objective(pushes):
        states = march.states(pushes)
        return loss(model.outputs(states[-1], inputs)), states

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
            # Each depends only on the weights of its operator.
            return jnp.sum(found), found

        (slopes, _), found = eqx.filter_grad(hamiltonians, has_aux=True)(interval)
        # A source is not a weight.
        slopes = map_parts(
            slopes,
            AbstractSourcedOperator,
            lambda operator, _: with_fields(operator, source=None, source_domain=None),
        )
        return found, jnp.sqrt(jnp.stack([*map(square, slopes)]))

    terms = march.equation.terms_of(0)
    ends = step_ends(march.equation, 0.0, march.steps)
    begin = march.on_constraint()
    step = ft.partial(over_interval, march.solver, terms, ends)
    _, pull = jax.vjp(lambda u: step(u).astype(u.dtype), begin)
    us = states[:-1].at[0].set(begin)
    ps = p[:-1].at[0].set(pull(p[1])[0])
    numbers = jnp.arange(equation.control.layers, dtype=states.dtype)
    given = numbers, equation.intervals(), us, ps
    return Costates(states, p, *jax.lax.map(one, given))
