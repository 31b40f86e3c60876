from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..equation import Depth
from .combine import combine
from .scheme import AbstractScheme


class ExplicitRungeKutta(AbstractScheme):
    """An explicit Runge–Kutta method of diffrax,

        k_i = F(t_n + c_i h, u_n + h Σ_{j<i} a_ij k_j),   u_{n+1} = u_n + h Σ_i b_i k_i,

    with its stages written out one after the other. diffrax itself makes them in a loop, in
    which they cannot be told apart.

    **Arguments:**

    - `solver`: the method, for its tableau.
    """

    solver: diffrax.AbstractERK

    @property
    def interpolation_cls(self) -> Callable:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.solver.interpolation_cls

    def order(self, terms: PyTree[diffrax.AbstractTerm]) -> int | None:
        return self.solver.order(terms)

    def step(
        self,
        terms: diffrax.AbstractTerm,
        t0: Depth,
        t1: Depth,
        y0: PyTree[Array],
        args: PyTree,
        solver_state: None,
        made_jump: PyTree,
    ) -> tuple:
        tableau: Any = self.solver.tableau
        rows = [(), *(tuple(map(float, row)) for row in tableau.a_lower)]
        nodes = [0.0, *map(float, tableau.c)]
        control = terms.contr(t0, t1)
        increments = []
        for row, node in zip(rows, nodes, strict=True):
            # The end of the step is met exactly.
            t = t1 if node == 1 else t0 + node * (t1 - t0)
            stage = combine(y0, row, increments)
            increments.append(terms.vf_prod(t, stage, args, control))
        y1 = combine(y0, tuple(map(float, tableau.b_sol)), increments)
        nothing = jax.tree.map(jnp.zeros_like, y0)
        error = combine(nothing, tuple(map(float, tableau.b_error)), increments)
        k = jax.tree.map(lambda *leaves: jnp.stack(leaves), *increments)
        return y1, error, dict(y0=y0, y1=y1, k=k), None, diffrax.RESULTS.successful


def unrolled(solver: PyTree) -> PyTree:
    """`solver` with the explicit Runge–Kutta methods of diffrax inside it written out."""

    def is_explicit(x):
        # Not isinstance, which looks through wrappers.
        return issubclass(type(x), diffrax.AbstractERK)

    return jax.tree.map(
        lambda x: ExplicitRungeKutta(x) if is_explicit(x) else x, solver, is_leaf=is_explicit
    )
