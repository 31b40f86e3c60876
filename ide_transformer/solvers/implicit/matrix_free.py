from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ...equation import Depth
from ...errors import InputError
from ..base.combine import combine
from ..base.evaluation_count import EvaluationCount
from ..base.status import first_failure
from .implicit_euler import ImplicitEuler
from .implicit_scheme import AbstractImplicitScheme
from .newton_krylov import find_root


class MatrixFree(AbstractImplicitScheme, diffrax.AbstractAdaptiveSolver):
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
    tolerance: float | None = eqx.field(static=True, default=None)

    @property
    def term_structure(self):
        return self.solver.term_structure

    @property
    def interpolation_cls(self) -> Callable:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.solver.interpolation_cls

    def order(self, terms: PyTree[diffrax.AbstractTerm]) -> int | None:
        return self.solver.order(terms)

    def error_order(self, terms: PyTree[diffrax.AbstractTerm]):
        return self.solver.error_order(terms)

    def step(
        self,
        terms: diffrax.AbstractTerm,
        t0: Depth,
        t1: Depth,
        y0: Array,
        args: PyTree,
        solver_state: EvaluationCount,
        made_jump: PyTree,
    ) -> tuple:
        tableau: Any = self.solver.tableau
        predictors = tableau.a_predictor or tableau.a_lower
        rows = [(), *(tuple(row) for row in tableau.a_lower)]
        guesses = [(), *(tuple(row) for row in predictors)]
        nodes = [tableau.c1, *tableau.c]
        control = terms.contr(t0, t1)
        increments, made, result = [], solver_state.count, diffrax.RESULTS.successful
        for row, guess, diagonal, node in zip(
            rows, guesses, tableau.a_diagonal, nodes, strict=True
        ):
            t = t1 if node == 1 else t0 + float(node) * (t1 - t0)
            partial = combine(y0, tuple(map(float, row)), increments)
            if diagonal == 0:
                increments.append(terms.vf_prod(t, partial, args, control))
                made = made + 1
                continue
            diagonal = float(diagonal)
            predicted = [diagonal * float(weight) for weight in guess]
            start = combine(partial, tuple(predicted), increments)
            stage, stage_result, evaluations = find_root(
                _residual,
                start,
                (terms, t, partial, diagonal, control, args),
                tolerance=self.tolerance,
            )
            increments.append((stage - partial) / diagonal)
            made = made + evaluations
            result = first_failure(result, diffrax.RESULTS.promote(stage_result))
        y1 = combine(y0, tuple(map(float, tableau.b_sol)), increments)
        error = combine(jnp.zeros_like(y0), tuple(map(float, tableau.b_error)), increments)
        dense_info = dict(y0=y0, y1=y1, k=jnp.stack(increments))
        return y1, error, dense_info, EvaluationCount(made), result


def _residual(stage: Array, inputs: tuple) -> Array:
    terms, t, partial, diagonal, control, args = inputs
    return stage - partial - diagonal * terms.vf_prod(t, stage, args, control)


def matrix_free(solver: PyTree) -> PyTree:
    """`solver` with the implicit schemes of diffrax inside it solved by Newton–Krylov, but
    for those that were given a root finder of their own."""

    def is_implicit(x):
        # Not isinstance, which looks through wrappers.
        return issubclass(type(x), diffrax.AbstractImplicitSolver)

    def replace(x):
        if not is_implicit(x) or isinstance(x.root_finder.rtol, int | float | np.ndarray):
            return x
        if isinstance(x, diffrax.ImplicitEuler):
            return ImplicitEuler()
        if isinstance(x, diffrax.AbstractDIRK):
            return MatrixFree(x)
        raise InputError(
            f"solve: {type(x).__name__} leaves the tolerances of its root finder open; give "
            "it one, or use ImplicitEuler(), ImplicitMidpoint() or diffrax.Kvaerno5()."
        )

    return jax.tree.map(replace, solver, is_leaf=is_implicit)
