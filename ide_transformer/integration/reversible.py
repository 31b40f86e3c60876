"""`Reversible`, the gradient mode that rebuilds the states of a reversible scheme."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, TypeAlias

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, PyTree

from .. import solvers
from ..arguments import PositiveFloat, checked
from ..errors import InputError
from .gradients import AbstractGradient, save_products
from .march import Steps
from .output import Output, Start, Status, Trajectory


class Inputs(NamedTuple):
    """The inputs of a step besides its weights, or `[intervals, steps]` of them."""

    index: Float[Array, "..."]
    t0: Float[Array, "..."]
    t1: Float[Array, "..."]
    first: Bool[Array, "..."]


# Makes the couplings of a step from its inputs and weights. It closes over other arrays, whose
# gradients are summed over all steps.
MakeCouplings: TypeAlias = Callable[[Inputs, PyTree], solvers.Couplings]

# `MakeCouplings`, the initial state, and the weights of the intervals.
Differentiable: TypeAlias = tuple[MakeCouplings, Array, PyTree]

# The last state, requested states at the ends of the intervals, and the status.
Outcome: TypeAlias = tuple[Array, Array | None, Status]


@checked
class Reversible(AbstractGradient):
    """Stores the state at T and rebuilds earlier states on the way back, step by step, so that
    memory does not grow with depth.

    For schemes whose steps can be undone: `AlgebraicallyReversible` around any explicit scheme,
    and `Leapfrog` on a continuous control. Constraints may only shift and scale a token: these
    two numbers are stored. A gain of ½ doubles rounding in every layer.

    Rounding grows on the way back. If the rebuilt initial state is wrong by more than
    `tolerance`, the gradient is NaN, or an error if `solve` has `throw=True`. The tolerance is
    relative to the largest entry of the state there or one interval later.
    """

    tolerance: PositiveFloat = eqx.field(static=True, default=1e-3)

    def adjoint(self) -> diffrax.AbstractAdjoint:
        raise InputError("solve: Reversible() undoes equal steps; use gradient=Recompute().")

    def march(self, steps: Steps, start: Start) -> Trajectory:
        start.output.require_interval_ends("gradient=Reversible()")
        differentiable, inputs = couple_steps(steps, start.u0, start.args)
        outcome = march_coupled(differentiable, inputs, self.tolerance, start.output)
        return steps.trajectory(*outcome)


def couple_steps(steps: Steps, u0: Array, args: PyTree) -> tuple[Differentiable, Inputs]:
    """The couplings of all steps, as functions of what is differentiated, and the inputs of the
    steps. Raises `InputError` if steps cannot be undone."""

    def at_step(inputs: Inputs, weights: PyTree) -> solvers.Couplings:
        terms = steps.equation.interval_terms(inputs.index, weights)
        field = solvers.StepField(terms, inputs.t0, inputs.t1, args)
        couplings = solvers.couplings_of(steps.solver, field, inputs.first)
        if couplings is None:
            raise InputError(
                f"solve: gradient=Reversible() cannot undo the steps of {steps.name}(…); use "
                f"AlgebraicallyReversible({steps.name}(…)) or gradient=Recompute()."
            )
        closed = []
        for coupling in couplings:
            if isinstance(coupling, solvers.Shear):
                # The gradient of one step is faster if it only stores products.
                increment = eqx.filter_checkpoint(coupling.increment, policy=save_products)
                # Then it closes only over the arrays that it uses.
                increment = eqx.filter_closure_convert(increment, u0)
                coupling = replace(coupling, increment=increment)
            closed.append(coupling)
        return tuple(closed)

    if solvers.restarts_at_jumps(steps.solver) and not steps.equation.continuous:
        raise InputError(
            f"solve: Reversible() cannot undo the start of {steps.name} at each jump of the "
            "field; use PiecewiseLinear, or AlgebraicallyReversible(…)."
        )
    edges = jax.vmap(steps.edges)(steps.indices)
    shape = len(edges), steps.steps_per_interval
    inputs = Inputs(
        index=jnp.broadcast_to(steps.indices[:, None], shape),
        t0=edges[:, :-1],
        t1=edges[:, 1:],
        first=jnp.zeros(shape, bool).at[0, 0].set(True),
    )
    weights = steps.equation.intervals()
    example = jax.tree.map(lambda x: x[0, 0], inputs), jax.tree.map(lambda x: x[0], weights)
    return (eqx.filter_closure_convert(at_step, *example), u0, weights), inputs


def forward(
    differentiable: Differentiable, inputs: Inputs, *, states: bool
) -> tuple[Outcome, tuple[Array, Array], PyTree[Array]]:
    """Makes all steps. Returns the outcome, the last pair, and what projections lost."""
    make, u0, weights = differentiable

    def interval(carry, x):
        pair, status = carry
        inputs, weights = x

        def step(pair, inputs):
            lost = []
            for coupling in make(inputs, weights):
                pair, coupling_lost = coupling.forward(pair)
                lost.append(coupling_lost)
            return pair, tuple(lost)

        pair, lost = _scan(step, pair, inputs)
        status = status.after(status.result, pair[0], inputs.t1[-1])
        return (pair, status), (lost, pair[0] if states else None)

    carry = (u0, u0), Status.start(u0.dtype)
    (pair, status), (lost, knots) = lax.scan(interval, carry, (inputs, weights))
    return (pair[0], knots, status), pair, lost


@eqx.filter_custom_vjp
def march_coupled(
    differentiable: Differentiable, inputs: Inputs, tolerance: float, output: Output
) -> Outcome:
    """Makes all steps by their couplings, with the gradient of `Reversible`."""
    return forward(differentiable, inputs, states=output.states)[0]


@march_coupled.def_fwd
def _march_fwd(perturbed, differentiable, inputs, tolerance, output):
    outcome, pair, lost = forward(differentiable, inputs, states=output.states)
    return outcome, (pair, lost)


@march_coupled.def_bwd
def _march_bwd(residuals, cotangents, perturbed, differentiable, inputs, tolerance, output):
    make, u0, weights = differentiable
    pair, lost = residuals
    of_u1, of_states, _ = cotangents

    def interval(carry, x):
        pair, of_pair, of_make = carry
        inputs, weights, lost, of_state = x
        after = jnp.max(jnp.abs(pair[0]))
        if of_state is not None:
            of_pair = of_pair[0] + of_state, of_pair[1]

        def step(carry, x):
            pair, of_pair, total = carry
            inputs, lost = x
            couplings, pull = eqx.filter_vjp(lambda make, w: make(inputs, w), make, weights)
            of_couplings = []
            for coupling, coupling_lost in zip(couplings[::-1], lost[::-1], strict=True):
                pair, of_pair, new = coupling.pullback(pair, coupling_lost, of_pair)
                of_couplings.insert(0, eqx.filter(new, eqx.is_inexact_array))
            total = jax.tree.map(jnp.add, total, pull(tuple(of_couplings)))
            return (pair, of_pair, total), None

        carry = pair, of_pair, (of_make, _zeros(weights))
        carry, _ = _scan(step, carry, (inputs, lost), reverse=True)
        pair, of_pair, (of_make, of_weights) = carry
        return (pair, of_pair, of_make), (of_weights, after)

    zero = jnp.zeros_like(pair[0])
    # Unused outputs have no cotangent.
    carry = pair, (zero if of_u1 is None else of_u1, zero), _zeros(make)
    (pair, of_pair, of_make), (of_weights, after) = lax.scan(
        interval, carry, (inputs, weights, lost, of_states), reverse=True
    )
    is_accurate = _relative_error(pair[0], u0, after[0]) <= tolerance
    # Both states of the first pair are u0.
    gradient = of_make, sum(of_pair), of_weights
    # A loop of at most one turn writes NaN in place; `jnp.where` would need a second tree.
    _, (of_make, of_u0, of_weights) = lax.while_loop(
        lambda carry: ~carry[0],
        lambda carry: (~carry[0], jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), carry[1])),
        (is_accurate, gradient),
    )
    if output.throw:
        of_u0 = eqx.error_if(
            of_u0,
            ~is_accurate,
            f"Reversible(tolerance={tolerance:g}): rounding of the rebuilt initial state is "
            "larger. Use a coupling nearer to 1, float64, or gradient=Recompute().",
        )
    return of_make, of_u0, of_weights


def _scan(step: Callable, carry: PyTree, xs: PyTree, reverse: bool = False) -> tuple:
    """`lax.scan`, but without a loop for one step."""
    is_one_step = jax.tree.leaves(xs)[0].shape[0] == 1
    return lax.scan(step, carry, xs, reverse=reverse, unroll=is_one_step)


def _relative_error(u: Array, exact: Array, after: Array) -> Float[Array, ""]:
    """The largest difference, relative to the largest entry of `exact` or `after`."""
    difference = jnp.max(jnp.abs(u - exact))
    size = jnp.maximum(jnp.max(jnp.abs(exact)), jnp.max(jnp.abs(after)))
    return jnp.where(difference == 0, 0, difference / size)


def _zeros(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.zeros_like, eqx.filter(tree, eqx.is_inexact_array))
