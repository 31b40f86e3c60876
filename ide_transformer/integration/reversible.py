"""The gradient mode of reversible schemes: a march whose states are rebuilt on the way back."""

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeAlias

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, PyTree

from ..arguments import PositiveFloat, PositiveInt, checked
from ..equation import Equation
from ..errors import InputError
from ..solvers import (
    AbstractCoupling,
    Couplings,
    Shear,
    StepField,
    couplings_of,
    restarts_at_jumps,
)
from .gradients import AbstractGradient, save_products
from .march import Steps, check_state, plan_steps
from .output import Output, Start, Status, Trajectory


class Inputs(NamedTuple):
    """The inputs of a step, but for its weights. Those of all steps are stacked, with leading
    axes interval and step."""

    index: Float[Array, "..."]
    t0: Float[Array, "..."]
    t1: Float[Array, "..."]
    first: Bool[Array, "..."]


class Makers(eqx.Module):
    """The couplings of a step, as a function of its inputs and weights, and of just those
    arrays around them that they use: the gradient with respect to these is summed over all
    steps."""

    each: tuple[Callable[[Inputs, PyTree], AbstractCoupling], ...]

    def __call__(self, inputs: Inputs, weights: PyTree) -> Couplings:
        return tuple(make(inputs, weights) for make in self.each)


# The makers of a march, its initial state and the weights of its intervals.
Differentiable: TypeAlias = tuple[Makers, Array, PyTree]

# The last state, those at the ends of the intervals, if asked for, and the status.
Outcome: TypeAlias = tuple[Array, Array | None, Status]


class Reversible(AbstractGradient):
    """Keep the state at T and rebuild those before it on the way back, step by step, so that
    memory does not grow with depth.

    For schemes whose steps can be undone: `AlgebraicallyReversible` around any explicit
    scheme, `Leapfrog` on a control without jumps, and these on a constraint whose projection
    loses a mean and a standard deviation of each token, which are kept. On `LayerNorm` and
    the spheres the way back divides by the gain: gains near 1 serve a hundred layers, one of ½
    doubles rounding in every layer.

    Rounding grows on the way back. If the rebuilt initial state differs from the true one by
    more than `tolerance`, relative to the largest entry of the state there or one interval
    later, the gradient is NaN, and an error where `solve` may raise. `rebuilding_error`
    measures the same at each depth.
    """

    tolerance: PositiveFloat = eqx.field(static=True, default=1e-3)

    def adjoint(self) -> diffrax.AbstractAdjoint:
        raise InputError(
            "solve: Reversible() undoes the equal steps of a reversible scheme; for adaptive "
            "steps use gradient=Recompute(), Recursive() or Direct()."
        )

    def march(self, steps: Steps, start: Start) -> Trajectory:
        if start.output.dense:
            raise InputError(
                "solve: gradient=Reversible() does not keep the steps that dense output and "
                "depths inside an interval need; ask for SaveAt(ts=equation.knots), or use "
                "gradient=Recompute()."
            )
        differentiable, inputs = coupled(steps, start.u0, start.args)
        outcome = march_coupled(differentiable, inputs, self.tolerance, start.output)
        return steps.trajectory(*outcome)


@checked
@eqx.filter_jit
def rebuilding_error(
    equation: Equation,
    u0: Float[ArrayLike, "*batch tokens features"],
    *,
    solver: diffrax.AbstractSolver,
    steps_per_interval: PositiveInt = 1,
    args: PyTree = None,
) -> Float[Array, " intervals"]:
    """The growth of rounding when a reversible scheme is undone, after a march to T and back:
    at the beginning of each interval the largest difference of the rebuilt state and the true
    one, relative to the largest entry of the state there or one interval later. `Reversible`
    checks the first of them. An `InputError` names a scheme that cannot be undone.

    **Arguments:** see `solve`.
    """
    u0 = jnp.asarray(u0)
    check_state(equation, u0, args)
    steps = plan_steps(equation, solver, steps_per_interval, u0)
    differentiable, inputs = coupled(steps, u0, args)
    makers, _, weights = differentiable
    (_, states, _), pair, lost = forward(differentiable, inputs, states=True)
    assert states is not None
    exact = jnp.concatenate([u0[None], states[:-1]])

    def interval(pair, x):
        weights, here, lost, exact = x
        after = _largest(pair[0])

        def step(pair, x):
            here, lost = x
            for coupling, lost_here in _backwards(makers(here, weights), lost):
                pair = coupling.backward(pair, lost_here)
            return pair, None

        pair, _ = lax.scan(step, pair, (here, lost), reverse=True)
        return pair, _relative_error(pair[0], exact, after)

    return lax.scan(interval, pair, (weights, inputs, lost, exact), reverse=True)[1]


def coupled(steps: Steps, u0: Array, args: PyTree) -> tuple[Differentiable, Inputs]:
    """The steps of a plan by their couplings; refuses steps that cannot be undone."""

    def at_step(inputs: Inputs, weights: PyTree) -> Couplings:
        terms = steps.equation.interval_terms(inputs.index, weights)
        field = StepField(terms, inputs.t0, inputs.t1, args)
        couplings = couplings_of(steps.solver, field, inputs.first)
        if couplings is None:
            raise InputError(
                f"solve: solver={steps.name}(…): its steps cannot be undone, as Reversible() "
                f"does; use AlgebraicallyReversible({steps.name}(…)), which makes any explicit "
                "scheme reversible, Leapfrog(), or gradient=Recompute()."
            )
        return couplings

    edges = jax.vmap(steps.edges)(steps.indices)
    shape = len(edges), steps.number
    inputs = Inputs(
        index=jnp.broadcast_to(steps.indices[:, None], shape),
        t0=edges[:, :-1],
        t1=edges[:, 1:],
        first=jnp.zeros(shape, bool).at[0, 0].set(True),
    )
    weights = steps.equation.intervals()
    example = jax.tree.map(lambda x: x[0, 0], inputs), jax.tree.map(lambda x: x[0], weights)

    def maker(k, coupling):
        if not isinstance(coupling, Shear):
            return eqx.filter_closure_convert(lambda x, w: at_step(x, w)[k], *example)
        # Its own gradient, taken one step at a time, keeps products alone: there it is faster.
        increment = jax.checkpoint(
            lambda inputs, weights, u: at_step(inputs, weights)[k].increment(u),
            policy=save_products,
        )
        increment = eqx.filter_closure_convert(increment, *example, u0)
        return _ShearMaker(increment, coupling.target, coupling.scale)

    couplings = at_step(*example)
    if restarts_at_jumps(steps.solver) and not steps.equation.continuous:
        raise InputError(
            f"solve: gradient=Reversible() with {steps.name}: a two-step scheme starts again "
            "where the field jumps, here at each layer, and a start cannot be undone; use a "
            "control without jumps, such as PiecewiseLinear, or AlgebraicallyReversible(…)."
        )
    makers = Makers(tuple(maker(k, coupling) for k, coupling in enumerate(couplings)))
    return (makers, u0, weights), inputs


class _ShearMaker(eqx.Module):
    increment: Callable
    target: int = eqx.field(static=True)
    scale: float = eqx.field(static=True)

    def __call__(self, inputs: Inputs, weights: PyTree) -> Shear:
        return Shear(eqx.Partial(self.increment, inputs, weights), self.target, self.scale)


def forward(
    differentiable: Differentiable, inputs: Inputs, *, states: bool
) -> tuple[Outcome, tuple[Array, Array], PyTree[Array]]:
    """The outcome, the last pair, and the values that the couplings have lost."""
    makers, u0, weights = differentiable

    def interval(carry, x):
        pair, status = carry
        here, weights = x

        def step(pair, here):
            lost = []
            for coupling in makers(here, weights):
                pair, lost_here = coupling.forward(pair)
                lost.append(lost_here)
            return pair, tuple(lost)

        pair, lost = _scan(step, pair, here)
        status = status.after(status.result, pair[0], here.t1[-1])
        return (pair, status), (lost, pair[0] if states else None)

    carry = (u0, u0), Status.start(u0.dtype)
    (pair, status), (lost, kept) = lax.scan(interval, carry, (inputs, weights))
    return (pair[0], kept, status), pair, lost


@eqx.filter_custom_vjp
def march_coupled(
    differentiable: Differentiable, inputs: Inputs, tolerance: float, output: Output
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
    cotangent_u1, cotangent_states, _ = cotangents

    def interval(carry, x):
        pair, cotangent_pair, cotangent_makers, _ = carry
        here, weights, lost, cotangent_state = x
        after = _largest(pair[0])
        if cotangent_state is not None:
            cotangent_pair = cotangent_pair[0] + cotangent_state, cotangent_pair[1]

        def step(carry, x):
            pair, cotangent_pair, cotangent_makers, cotangent_weights = carry
            here, lost = x
            couplings, pull = eqx.filter_vjp(lambda make, w: make(here, w), makers, weights)
            of_couplings = []
            for coupling, lost_here in _backwards(couplings, lost):
                pair, cotangent_pair, new = coupling.pullback(pair, lost_here, cotangent_pair)
                of_couplings.insert(0, eqx.filter(new, eqx.is_inexact_array))
            of_makers, of_weights = pull(tuple(of_couplings))
            cotangent_makers = _add(cotangent_makers, of_makers)
            cotangent_weights = _add(cotangent_weights, of_weights)
            return (pair, cotangent_pair, cotangent_makers, cotangent_weights), None

        carry = pair, cotangent_pair, cotangent_makers, _zeros(weights)
        carry, _ = _scan(step, carry, (here, lost), reverse=True)
        return (*carry[:3], after), carry[3]

    zero = jnp.zeros_like(pair[0])
    # Outputs that the loss does not use have no cotangent.
    cotangent_pair = zero if cotangent_u1 is None else cotangent_u1, zero
    (pair, cotangent_pair, cotangent_makers, after), cotangent_weights = lax.scan(
        interval,
        (pair, cotangent_pair, _zeros(makers), _largest(pair[0])),
        (inputs, weights, lost, cotangent_states),
        reverse=True,
    )
    # At the beginning both states of the pair are u0.
    cotangent_u0 = cotangent_pair[0] + cotangent_pair[1]
    good = _relative_error(pair[0], u0, after) <= tolerance
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


def _backwards(couplings: Couplings, lost: PyTree) -> Iterable[tuple[AbstractCoupling, PyTree]]:
    return zip(reversed(couplings), reversed(lost), strict=True)


def _scan(step: Callable, carry: PyTree, xs: PyTree, reverse: bool = False) -> tuple:
    """`lax.scan`, without the loop where it has one turn."""
    if jax.tree.leaves(xs)[0].shape[0] > 1:
        return lax.scan(step, carry, xs, reverse=reverse)
    carry, y = step(carry, jax.tree.map(lambda x: x[0], xs))
    return carry, jax.tree.map(lambda x: x[None], y)


def _largest(u: Array) -> Float[Array, ""]:
    return jnp.max(jnp.abs(u))


def _relative_error(u: Array, exact: Array, after: Float[Array, ""]) -> Float[Array, ""]:
    """The largest difference, relative to the largest entry of the exact state, or to that of
    the state an interval later, `after`, since the first may be zero; 0 where there is none."""
    difference = _largest(u - exact)
    return jnp.where(difference == 0, 0, difference / jnp.maximum(_largest(exact), after))


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
