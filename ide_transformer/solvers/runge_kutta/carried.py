"""Schemes whose step depends on the steps before."""

import diffrax
import jax
from jaxtyping import PyTree

from ...errors import InputError
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


def refuse_past(
    where: str, solver: diffrax.AbstractSolver, state: PyTree, *, why: str, example: str
) -> None:
    """**Raises:** `InputError` for a scheme whose steps depend on earlier ones.

    **Arguments:**

    - `where`: the object or function that cannot use it, as the message begins.
    - `solver`, `state`: as for `carries_past`.
    - `why`: why there are no earlier steps.
    - `example`: what to write instead.
    """
    if carries_past(solver, state):
        raise InputError(
            f"{where}: {type(solver).__name__} uses earlier steps, but {why}; use a scheme "
            f"without a memory, for example {example}."
        )


def _is_count(x: object) -> bool:
    return isinstance(x, EvaluationCount)
