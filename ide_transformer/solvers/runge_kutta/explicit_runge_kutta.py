from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, PyTree

from ...equation import Depth
from ..base.combine import combine


class ExplicitRungeKutta(diffrax.AbstractAdaptiveSolver):
    """An explicit Runge–Kutta method of diffrax, its stages written out one after the other,

        k_i = h F(t + c_i h, u_n + Σ_{j<i} a_ij k_j),   u_{n+1} = u_n + Σ_i b_i k_i.

    diffrax runs them in a loop over a buffer of stages, which is quick to compile; written
    out they are as fast as by hand, and each evaluation of the field can be told apart.

    `solve` puts it around the explicit methods of diffrax when steps are fixed.

    **Arguments:**

    - `solver`: the method, for its tableau.
    """

    solver: diffrax.AbstractERK

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

    def init(
        self,
        terms: diffrax.AbstractTerm,
        t0: Depth,
        t1: Depth,
        y0: PyTree[Array],
        args: PyTree,
    ) -> PyTree:
        if not self._tableau.fsal:
            return None
        # The last stage of a step is the first one of the next: the state is that field, and
        # whether there is none yet.
        return True, jax.tree.map(jnp.zeros_like, eqx.filter_eval_shape(terms.vf, t0, y0, args))

    def step(
        self,
        terms: diffrax.AbstractTerm,
        t0: Depth,
        t1: Depth,
        y0: PyTree[Array],
        args: PyTree,
        solver_state: PyTree,
        made_jump: PyTree,
    ) -> tuple:
        tableau = self._tableau
        control = terms.contr(t0, t1)
        missing, first = solver_state if tableau.fsal else (True, None)
        if made_jump is True or missing is True:
            first = terms.vf(t0, y0, args)
        else:
            first = lax.cond(
                jnp.asarray(missing) | made_jump,
                lambda y, field: terms.vf(t0, y, args),
                lambda y, field: field,
                y0,
                first,
            )
        field, stage = first, y0
        increments = [terms.prod(first, control)]
        for row, node in zip(tableau.a_lower, tableau.c, strict=True):
            # The end of the step is met exactly.
            t = t1 if node == 1 else t0 + float(node) * (t1 - t0)
            stage = combine(y0, tuple(map(float, row)), increments)
            field = terms.vf(t, stage, args)
            increments.append(terms.prod(field, control))
        solution = tuple(map(float, tableau.b_sol))
        y1 = stage if tableau.ssal else combine(y0, solution, increments)
        zero = jax.tree.map(jnp.zeros_like, y0)
        error = combine(zero, tuple(map(float, tableau.b_error)), increments)
        k = jax.tree.map(lambda *leaves: jnp.stack(leaves), *increments)
        state = (False, field) if tableau.fsal else None
        return y1, error, dict(y0=y0, y1=y1, k=k), state, diffrax.RESULTS.successful

    def func(
        self,
        terms: diffrax.AbstractTerm,
        t0: Depth,
        y0: PyTree[Array],
        args: PyTree,
    ) -> PyTree[Array]:
        return self.solver.func(terms, t0, y0, args)

    @property
    def _tableau(self) -> Any:
        return self.solver.tableau


def unrolled(solver: PyTree) -> PyTree:
    """`solver` with the explicit Runge–Kutta methods of diffrax inside it written out."""

    def is_explicit(x):
        # Not isinstance, which looks through wrappers; nor a method with a step of its own.
        kind = type(x)
        return issubclass(kind, diffrax.AbstractERK) and kind.step is diffrax.AbstractERK.step

    return jax.tree.map(
        lambda x: ExplicitRungeKutta(x) if is_explicit(x) else x, solver, is_leaf=is_explicit
    )
