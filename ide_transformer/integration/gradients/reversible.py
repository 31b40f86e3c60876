"""The march of a reversible scheme: on the way back its states are rebuilt."""

from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, PyTree

from ...equation import Equation
from ...errors import InputError
from ...solvers import AbstractCoupling, Shear, finite, first_failure, success
from .gradient import PRODUCTS, AbstractGradient


class Reversible(AbstractGradient):
    """Keep the state at T and rebuild those before it on the way back, step by step, so that
    memory does not grow with depth.

    For schemes whose steps can be undone: `AlgebraicallyReversible` around any explicit
    scheme, `Leapfrog` on a control without jumps, and these on a constraint whose projection
    loses a mean and a standard deviation of each token, which are kept.

    On `LayerNorm` and the spheres the way back divides by the gain: gains near 1 serve a
    hundred layers, one of ½ doubles rounding in every layer.

    Rounding grows on the way back. Once it has arrived, the rebuilt initial state is
    compared with the true one; if they differ by more than `tolerance`, relative to the
    largest entry, the gradient is NaN, and an error where `solve` may raise.
    `rebuilding_error` measures the same at each depth.

    **Arguments:**

    - `tolerance`: the largest relative difference that is accepted.
    """

    tolerance: float = eqx.field(static=True, default=1e-3)

    def scan(self, interval: Callable, carry: PyTree, xs: PyTree) -> tuple[PyTree, PyTree]:
        raise InputError(
            "solve: Reversible() undoes the equal steps of a reversible scheme; for adaptive "
            "steps use gradient=Recompute(), Recursive() or Direct()."
        )

    def adjoint(self) -> diffrax.AbstractAdjoint:
        return diffrax.RecursiveCheckpointAdjoint()


class Inputs(NamedTuple):
    """What a step needs to know; those of all steps, stacked, have the leading axes interval
    and step, the weights the first of them."""

    index: Float[Array, "..."]
    t0: Float[Array, "..."]
    t1: Float[Array, "..."]
    first: Bool[Array, "..."]
    weights: PyTree[Array]


class Outputs(NamedTuple):
    """The solution of a reversible march; as of `Trajectory`."""

    u1: Float[Array, "*batch tokens features"]
    states: Float[Array, "intervals *batch tokens features"] | None
    result: diffrax.RESULTS
    failed_at: Float[Array, ""]


def march_reversibly(
    couplings: Callable[[Inputs], tuple[AbstractCoupling, ...]],
    u0: Float[Array, "*batch tokens features"],
    inputs: Inputs,
    *,
    tolerance: float,
    keep_states: bool,
    throw: bool,
) -> Outputs:
    """All steps, each made of its couplings, with the gradient of `Reversible`.

    **Arguments:**

    - `couplings`: of the step with these inputs.
    - `inputs`: of all steps.
    - `keep_states`: whether the states at the ends of the intervals are wanted.
    - `throw`: whether a gradient that rounding has spoilt is an error.
    """
    weights = inputs.weights
    grid = inputs._replace(weights=None)
    makers = makers_of(couplings, step_inputs(inputs, 0, 0), u0)
    options = (tolerance, keep_states, throw)
    return _march((makers, u0, weights), grid, options)


def step_inputs(inputs: Inputs, interval: int, step: int) -> Inputs:
    """The inputs of one step, out of those of all."""
    grid = jax.tree.map(lambda x: x[interval, step], inputs._replace(weights=None))
    return grid._replace(weights=jax.tree.map(lambda x: x[interval], inputs.weights))


def reversible_inputs(equation: Equation, offsets: np.ndarray) -> Inputs:
    """The inputs of all steps of a march.

    **Arguments:**

    - `offsets`: of the ends of the steps from the beginning of their interval.
    """
    intervals, steps = equation.control.num_intervals, len(offsets) - 1
    index = jnp.arange(intervals, dtype=offsets.dtype)
    edges = index[:, None] * equation.control.interval_length + offsets[None]
    shape = intervals, steps
    return Inputs(
        index=jnp.broadcast_to(index[:, None], shape),
        t0=edges[:, :-1],
        t1=edges[:, 1:],
        first=jnp.zeros(shape, bool).at[0, 0].set(True),
        weights=equation.intervals(),
    )


class _Bound(eqx.Module):
    """An increment with the inputs of its step."""

    function: Callable
    inputs: Inputs

    def __call__(self, x: Array) -> Array:
        # Its own gradient is taken one step at a time, where this is the faster way.
        function = jax.checkpoint(lambda *step: self.function(*step), policy=PRODUCTS)
        return function(self.inputs, x)


class _ShearMaker(eqx.Module):
    function: Callable
    target: int = eqx.field(static=True)
    scale: float = eqx.field(static=True)

    def __call__(self, inputs: Inputs) -> Shear:
        return Shear(_Bound(self.function, inputs), self.target, self.scale)


def makers_of(
    couplings: Callable[[Inputs], tuple[AbstractCoupling, ...]],
    example: Inputs,
    u: Float[Array, "*batch tokens features"],
) -> tuple[Callable[[Inputs], AbstractCoupling], ...]:
    """The couplings of a step as functions of its inputs, and of just those arrays around
    them that they use: the gradient with respect to these is summed over all steps."""

    def maker(k, coupling):
        if isinstance(coupling, Shear):
            increment = eqx.filter_closure_convert(
                lambda inputs, x: couplings(inputs)[k].increment(x), example, u
            )
            return _ShearMaker(increment, coupling.target, coupling.scale)
        return eqx.filter_closure_convert(lambda inputs: couplings(inputs)[k], example)

    return tuple(maker(k, coupling) for k, coupling in enumerate(couplings(example)))


@eqx.filter_custom_vjp
def _march(differentiable: tuple, grid: Inputs, options: tuple) -> Outputs:
    return _forth(differentiable, grid, options)[0]


@_march.def_fwd
def _march_fwd(perturbed, differentiable, grid, options):
    outputs, pair, lost = _forth(differentiable, grid, options)
    return outputs, (pair, lost)


@_march.def_bwd
def _march_bwd(residuals, of_outputs, perturbed, differentiable, grid, options):
    (makers, u0, weights), (tolerance, keep_states, throw) = differentiable, options
    pair, lost = residuals
    of_states = of_outputs.states if keep_states else None

    def step(carry, x):
        pair, of_pair, of_makers, of_weights, weights = carry
        here, lost = x
        here = here._replace(weights=weights)
        news = []
        for maker, lost_here in zip(reversed(makers), reversed(lost), strict=True):
            _, pull = eqx.filter_vjp(_arrays_of, maker, here)
            coupling = maker(here)
            pair, of_pair, of_coupling = coupling.pullback(pair, lost_here, of_pair)
            of_maker, of_here = pull(eqx.filter(of_coupling, eqx.is_inexact_array))
            news.append(of_maker)
            of_weights = _add(of_weights, of_here.weights)
        of_makers = _add(of_makers, tuple(reversed(news)))
        return (pair, of_pair, of_makers, of_weights, weights), None

    def interval(carry, x):
        pair, of_pair, of_makers = carry
        here, weights, lost, of_state = x
        if of_state is not None:
            of_pair = of_pair[0] + of_state, of_pair[1]
        carry = (pair, of_pair, of_makers, _zeros(weights), weights)
        carry, _ = _scan(step, carry, (here, lost), reverse=True)
        pair, of_pair, of_makers, of_weights, _ = carry
        return (pair, of_pair, of_makers), of_weights

    zero = jnp.zeros_like(pair[0])
    # What the loss does not look at has no cotangent.
    of_pair = zero if of_outputs.u1 is None else of_outputs.u1, zero
    carry = (pair, of_pair, _zeros(makers))
    (pair, of_pair, of_makers), of_weights = lax.scan(
        interval, carry, (grid, weights, lost, of_states), reverse=True
    )
    # At the beginning both states of the pair are u0.
    of_u0 = of_pair[0] + of_pair[1]
    error = relative_error(pair[0], u0)
    good = error <= tolerance
    of_u0, of_makers, of_weights = _nan_unless(good, (of_u0, of_makers, of_weights))
    if throw:
        of_u0 = eqx.error_if(
            of_u0,
            ~good,
            f"Reversible(tolerance={tolerance:g}): on the way back rounding has grown so much "
            "that the rebuilt initial state differs from the true one by more than that, so "
            "the gradient would be wrong. Take AlgebraicallyReversible with a coupling nearer "
            "to 1, smaller steps, float64, or gradient=Recompute().",
        )
    return of_makers, of_u0, of_weights


def _forth(differentiable: tuple, grid: Inputs, options: tuple) -> tuple:
    """The outputs, the last pair, and what the couplings have lost."""
    (makers, u0, weights), (_, keep_states, _) = differentiable, options

    def interval(carry, x):
        pair, result, failed_at = carry
        here, weights = x

        def step(pair, here):
            return advance(makers, here._replace(weights=weights), pair)

        pair, lost = _scan(step, pair, here)
        result = first_failure(result, finite(pair[0]))
        failed_at = jnp.where(
            result == diffrax.RESULTS.successful, jnp.inf, jnp.minimum(failed_at, here.t1[-1])
        )
        return (pair, result, failed_at), (lost, pair[0] if keep_states else None)

    carry = ((u0, u0), success(), jnp.array(jnp.inf, u0.dtype))
    (pair, result, failed_at), (lost, states) = lax.scan(interval, carry, (grid, weights))
    return Outputs(pair[0], states, result, failed_at), pair, lost


def advance(
    makers: tuple[Callable[[Inputs], AbstractCoupling], ...],
    inputs: Inputs,
    pair: tuple[Array, Array],
) -> tuple[tuple[Array, Array], tuple]:
    """One step of the pair, and what each coupling has lost."""
    lost = []
    for maker in makers:
        pair, lost_here = maker(inputs).forward(pair)
        lost.append(lost_here)
    return pair, tuple(lost)


def relative_error(u: Array, exact: Array) -> Float[Array, ""]:
    """The largest difference, relative to the largest entry."""
    return jnp.max(jnp.abs(u - exact)) / jnp.max(jnp.abs(exact))


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


def _arrays_of(maker: Callable, inputs: Inputs) -> Any:
    return eqx.filter(maker(inputs), eqx.is_inexact_array)


def _zeros(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.zeros_like, eqx.filter(tree, eqx.is_inexact_array))


def _add(a: PyTree, b: PyTree) -> PyTree:
    return jax.tree.map(jnp.add, a, b)
