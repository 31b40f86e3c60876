"""Schemes whose step depends on the steps before."""

import diffrax
import jax
from jaxtyping import PyTree

from ..base.evaluations import EvaluationCount
from .explicit_runge_kutta import ExplicitRungeKutta


def carries_past(solver: diffrax.AbstractSolver, state: PyTree) -> bool:
    """Whether the steps of a scheme depend on what it carries of earlier ones. The stage that
    a Runge–Kutta method uses again does not change a step, nor does a count of evaluations.

    **Arguments:**

    - `solver`: the scheme.
    - `state`: that of the scheme before its first step, or the structure of it.
    """
    while issubclass(type(solver), diffrax.AbstractWrappedSolver):
        solver = solver.solver  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(solver, diffrax.AbstractRungeKutta | ExplicitRungeKutta):
        return False
    leaves = jax.tree.leaves(state, is_leaf=_is_count)
    return not all(map(_is_count, leaves))


def _is_count(x: object) -> bool:
    return isinstance(x, EvaluationCount)
