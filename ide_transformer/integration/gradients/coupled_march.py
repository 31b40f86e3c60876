"""The march of a reversible scheme: on the way back its states are rebuilt."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, PyTree

from ..output import Output
from ..trajectory import Status
from .coupled_steps import Inputs, Makers, advance


class Outcome(NamedTuple):
    """The outcome of a march by couplings: see `Trajectory`."""

    u1: Float[Array, "*batch tokens features"]
    states: Float[Array, "intervals *batch tokens features"] | None
    status: Status


class _Cotangents(NamedTuple):
    """The cotangents of the pair, of the makers, and of the weights of the interval."""

    pair: tuple[Array, Array]
    makers: PyTree
    weights: PyTree


def forward(
    differentiable: tuple[Makers, Array, PyTree], inputs: Inputs, *, states: bool
) -> tuple[Outcome, tuple[Array, Array], PyTree[Array]]:
    """The outcome, the last pair, and the values that the couplings have lost."""
    makers, u0, weights = differentiable

    def interval(carry, x):
        pair, status = carry
        here, weights = x

        def step(pair, here):
            return advance(makers, here._replace(weights=weights), pair)

        pair, lost = _scan(step, pair, here)
        status = status.after(status.result, pair[0], here.t1[-1])
        return (pair, status), (lost, pair[0] if states else None)

    carry = (u0, u0), Status.start(u0.dtype)
    (pair, status), (lost, kept) = lax.scan(interval, carry, (inputs, weights))
    return Outcome(pair[0], kept, status), pair, lost


def largest_entry(u: Array) -> Float[Array, ""]:
    """The largest absolute value of a state."""
    return jnp.max(jnp.abs(u))


def relative_error(u: Array, exact: Array, after: Float[Array, ""]) -> Float[Array, ""]:
    """The largest difference, relative to the largest entry of the exact state, or to that of
    the state an interval later, `after`, since the first may be zero; 0 where there is none."""
    difference = largest_entry(u - exact)
    size = jnp.maximum(largest_entry(exact), after)
    return jnp.where(difference == 0, 0, difference / size)


@eqx.filter_custom_vjp
def march_coupled(
    differentiable: tuple[Makers, Array, PyTree],
    inputs: Inputs,
    tolerance: float,
    output: Output,
) -> Outcome:
    """All steps, each made of its couplings, with the gradient of `Reversible`; as a function
    of the makers, the initial state and the weights."""
    return forward(differentiable, inputs, states=output.states)[0]


@march_coupled.def_fwd
def _march_fwd(perturbed, differentiable, inputs, tolerance, output):
    outcome, pair, lost = forward(differentiable, inputs, states=output.states)
    return outcome, (pair, lost)


@march_coupled.def_bwd
def _march_bwd(residuals, cotangents, perturbed, differentiable, inputs, tolerance, output):
    makers, u0, weights = differentiable
    pair, lost = residuals

    def step(carry, x):
        pair, cotangent, weights = carry
        here, lost = x
        pair, cotangent = _step_back(
            makers, here._replace(weights=weights), lost, pair, cotangent
        )
        return (pair, cotangent, weights), None

    def interval(carry, x):
        pair, cotangent_pair, cotangent_makers, _ = carry
        here, weights, lost, cotangent_state = x
        after = largest_entry(pair[0])
        if cotangent_state is not None:
            cotangent_pair = cotangent_pair[0] + cotangent_state, cotangent_pair[1]
        cotangent = _Cotangents(cotangent_pair, cotangent_makers, _zeros(weights))
        (pair, cotangent, _), _ = _scan(
            step, (pair, cotangent, weights), (here, lost), reverse=True
        )
        return (pair, cotangent.pair, cotangent.makers, after), cotangent.weights

    zero = jnp.zeros_like(pair[0])
    # Outputs that the loss does not use have no cotangent.
    cotangent_pair = zero if cotangents.u1 is None else cotangents.u1, zero
    cotangent_states = cotangents.states if output.states else None
    (pair, cotangent_pair, cotangent_makers, after), cotangent_weights = lax.scan(
        interval,
        (pair, cotangent_pair, _zeros(makers), largest_entry(pair[0])),
        (inputs, weights, lost, cotangent_states),
        reverse=True,
    )
    # At the beginning both states of the pair are u0.
    cotangent_u0 = cotangent_pair[0] + cotangent_pair[1]
    good = relative_error(pair[0], u0, after) <= tolerance
    cotangent_u0, cotangent_makers, cotangent_weights = _nan_unless(
        good, (cotangent_u0, cotangent_makers, cotangent_weights)
    )
    if output.throw:
        cotangent_u0 = eqx.error_if(
            cotangent_u0,
            ~good,
            f"Reversible(tolerance={tolerance:g}): on the way back rounding has grown "
            "so much that the rebuilt initial state differs from the true one by more than "
            "that, so the gradient would be wrong. Take AlgebraicallyReversible with a "
            "coupling nearer to 1, smaller steps, float64, or gradient=Recompute().",
        )
    return cotangent_makers, cotangent_u0, cotangent_weights


def _step_back(
    makers: tuple, inputs: Inputs, lost: tuple, pair: tuple, cotangent: _Cotangents
) -> tuple[tuple[Array, Array], _Cotangents]:
    """The pair before a step, and the cotangents there."""
    cotangent_pair, cotangent_makers, cotangent_weights = cotangent
    news = []
    for maker, lost_here in zip(reversed(makers), reversed(lost), strict=True):
        _, pull = eqx.filter_vjp(
            lambda maker, inputs: eqx.filter(maker(inputs), eqx.is_inexact_array), maker, inputs
        )
        pair, cotangent_pair, cotangent_coupling = maker(inputs).pullback(
            pair, lost_here, cotangent_pair
        )
        cotangent_maker, cotangent_inputs = pull(
            eqx.filter(cotangent_coupling, eqx.is_inexact_array)
        )
        news.append(cotangent_maker)
        cotangent_weights = _add(cotangent_weights, cotangent_inputs.weights)
    cotangent_makers = _add(cotangent_makers, tuple(reversed(news)))
    return pair, _Cotangents(cotangent_pair, cotangent_makers, cotangent_weights)


def _scan(step: Callable, carry: PyTree, xs: PyTree, reverse: bool = False) -> tuple:
    """`lax.scan`, without the loop where it has one turn."""
    if jax.tree.leaves(xs)[0].shape[0] > 1:
        return lax.scan(step, carry, xs, reverse=reverse)
    carry, y = step(carry, jax.tree.map(lambda x: x[0], xs))
    return carry, jax.tree.map(lambda x: x[None], y)


def _nan_unless(good: Bool[Array, ""], tree: PyTree[Array]) -> PyTree[Array]:
    """The tree, or NaN in its place. A loop of no or one turn writes there; a choice between
    the two would need room for a second tree."""
    return lax.while_loop(
        lambda carry: ~carry[0],
        lambda carry: (~carry[0], jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), carry[1])),
        (good, tree),
    )[1]


def _zeros(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.zeros_like, eqx.filter(tree, eqx.is_inexact_array))


def _add(a: PyTree, b: PyTree) -> PyTree:
    return jax.tree.map(jnp.add, a, b)
