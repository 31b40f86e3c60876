"""The plan of a march by couplings, which can be undone."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from ...errors import InputError
from ...solvers import (
    AbstractCoupling,
    Couplings,
    Projected,
    Shear,
    find_couplings,
    restarts_at_jumps,
)
from ..march import Steps
from .modes import save_products


class Inputs(NamedTuple):
    """The inputs of a step. Those of all steps are stacked, with leading axes interval and
    step, and without the weights, which belong to the intervals."""

    index: Float[Array, "..."]
    t0: Float[Array, "..."]
    t1: Float[Array, "..."]
    first: Bool[Array, "..."]
    weights: PyTree[Array] = None


# The couplings of a step, each as a function of the inputs of the step.
Makers: TypeAlias = tuple[Callable[[Inputs], AbstractCoupling], ...]


class CoupledSteps(NamedTuple):
    """The couplings of a step, the stacked inputs of all steps, and the weights of all
    intervals."""

    makers: Makers
    inputs: Inputs
    weights: PyTree[Array]


def coupled(
    steps: Steps, u0: Float[Array, "*batch tokens features"], args: PyTree
) -> CoupledSteps:
    """The steps of a plan by their couplings.

    **Raises:** `InputError` for steps that cannot be undone.
    """
    couplings = _find_couplings(steps)

    def at_step(inputs: Inputs) -> tuple[AbstractCoupling, ...]:
        terms = steps.equation.interval_terms(inputs.index, inputs.weights)
        return couplings(terms, inputs.t0, inputs.t1, args, inputs.first)

    index = steps.indices
    edges = index[:, None] * steps.equation.control.interval_length + steps.offsets[None]
    shape = len(index), steps.number
    inputs = Inputs(
        index=jnp.broadcast_to(index[:, None], shape),
        t0=edges[:, :-1],
        t1=edges[:, 1:],
        first=jnp.zeros(shape, bool).at[0, 0].set(True),
    )
    weights = steps.equation.intervals()
    example = jax.tree.map(lambda x: x[0, 0], inputs)
    example = example._replace(weights=jax.tree.map(lambda x: x[0], weights))
    return CoupledSteps(_makers(at_step, example, u0), inputs, weights)


def advance(
    makers: Makers, inputs: Inputs, pair: tuple[Array, Array]
) -> tuple[tuple[Array, Array], tuple]:
    """One step of the pair, and for each coupling the values that it has lost."""
    lost = []
    for maker in makers:
        pair, lost_here = maker(inputs).forward(pair)
        lost.append(lost_here)
    return pair, tuple(lost)


def _find_couplings(steps: Steps) -> Couplings:
    # The scheme that the user gave.
    given = steps.solver.solver if isinstance(steps.solver, Projected) else steps.solver
    name = type(given).__name__
    couplings = find_couplings(steps.solver)
    if couplings is None:
        raise InputError(
            f"solve: solver={name}(…): Reversible() undoes the steps of the scheme, and these "
            f"cannot be undone; use AlgebraicallyReversible({name}(…)), which makes any "
            "explicit scheme reversible, Leapfrog(), or gradient=Recompute()."
        )
    if restarts_at_jumps(steps.solver) and not steps.equation.continuous:
        raise InputError(
            f"solve: gradient=Reversible() with {name}: a two-step scheme starts again where "
            "the field jumps, here at each layer, and a start cannot be undone; use a control "
            "without jumps, such as PiecewiseLinear, or AlgebraicallyReversible(…)."
        )
    return couplings


def _makers(
    couplings: Callable[[Inputs], tuple[AbstractCoupling, ...]],
    example: Inputs,
    u: Float[Array, "*batch tokens features"],
) -> Makers:
    """The couplings as functions of the inputs of a step, and of just those arrays around
    them that they use: the gradient with respect to these is summed over all steps."""

    def maker(k, coupling):
        if isinstance(coupling, Shear):
            increment = eqx.filter_closure_convert(
                lambda inputs, x: couplings(inputs)[k].increment(x), example, u
            )
            return _ShearMaker(increment, coupling.target, coupling.scale)
        return eqx.filter_closure_convert(lambda inputs: couplings(inputs)[k], example)

    return tuple(maker(k, coupling) for k, coupling in enumerate(couplings(example)))


class _ShearMaker(eqx.Module):
    increment: Callable
    target: int = eqx.field(static=True)
    scale: float = eqx.field(static=True)

    def __call__(self, inputs: Inputs) -> Shear:
        return Shear(eqx.Partial(_recomputed, self.increment, inputs), self.target, self.scale)


def _recomputed(increment: Callable, inputs: Inputs, x: Array) -> Array:
    """An increment whose own gradient, taken one step at a time, keeps products alone: there
    it is the faster way."""
    return jax.checkpoint(lambda *step: increment(*step), policy=save_products)(inputs, x)
