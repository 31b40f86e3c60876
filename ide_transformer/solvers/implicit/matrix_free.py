from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ...arguments import PositiveFloat
from ...errors import InputError
from ..base.step import Step, StepField, U, first_failure
from ..base.wrapper import AbstractWrapper, replace_schemes
from ..runge_kutta.explicit_runge_kutta import combine, stacked
from .implicit_schemes import AbstractImplicitScheme, ImplicitEuler, solve_stage


class MatrixFree(AbstractImplicitScheme, AbstractWrapper, diffrax.AbstractAdaptiveSolver):
    """A diagonally implicit Runge–Kutta method of diffrax, each stage

        Y_i = u_n + h Σ_{j<i} a_ij F(t_j, Y_j) + h a_ii F(t_i, Y_i)

    solved by Newton–Krylov. diffrax itself would form the Jacobian matrix, whose sides are
    as long as the whole state, when it computes a gradient.

    `solve` puts it around diffrax's `Kvaerno3`, `Kvaerno4` and `Kvaerno5` by itself.

    **Arguments:**

    - `solver`: the method, for its tableau.
    - `tolerance`: of Newton's method, relative and absolute; by default one that fits the
      dtype of the state.
    """

    solver: diffrax.AbstractDIRK
    tolerance: PositiveFloat | None = eqx.field(static=True, default=None)

    # `solve` puts it in by itself.
    configurable: ClassVar[bool] = False

    def make_step(self, field: StepField, u: U, state: PyTree, made_jump: PyTree) -> Step:
        tableau: Any = self.solver.tableau
        stages = zip(
            ((), *tableau.a_lower),
            ((), *(tableau.a_predictor or tableau.a_lower)),
            map(float, tableau.a_diagonal),
            map(float, (tableau.c1, *tableau.c)),
            strict=True,
        )
        increments, result = [], diffrax.RESULTS.successful
        for row, guess, diagonal, node in stages:
            partial = combine(u, row, increments)
            if diagonal == 0:
                increments.append(field(node, partial))
                state = state.plus(1)
                continue
            start = combine(partial, diagonal * np.asarray(guess), increments)
            root = solve_stage(field, node, partial, diagonal, start, self.tolerance)
            increments.append((root.value - partial) / diagonal)
            state = state.plus(root.evaluations)
            result = first_failure(result, root.result)
        y1 = combine(u, tableau.b_sol, increments)
        error = combine(jnp.zeros_like(u), tableau.b_error, increments)
        k = stacked(increments)
        return Step.between(u, y1, error=error, state=state, result=result, k=k)


def matrix_free(solver: PyTree) -> PyTree:
    """`solver` with the implicit schemes of diffrax inside it solved by Newton–Krylov, but
    for those that were given a root finder of their own."""
    return replace_schemes(
        solver, diffrax.AbstractImplicitSolver | MatrixFree, _by_newton_krylov
    )


def _by_newton_krylov(solver: Any) -> diffrax.AbstractSolver:
    own = isinstance(solver, MatrixFree)
    if own or isinstance(solver.root_finder.rtol, int | float | np.ndarray):
        return solver
    kind = type(solver)
    if issubclass(kind, diffrax.ImplicitEuler):
        return ImplicitEuler()
    if issubclass(kind, diffrax.AbstractDIRK):
        return MatrixFree(solver)
    raise InputError(
        f"solve: {kind.__name__} leaves the tolerances of its root finder open; give it "
        "one, or use ImplicitEuler(), ImplicitMidpoint() or diffrax.Kvaerno5()."
    )
