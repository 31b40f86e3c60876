"""Explicit Runge–Kutta methods: RK4, and diffrax's with unrolled stages."""

from collections.abc import Callable, Iterable
from typing import ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, PyTree

from ..arguments import checked
from ..equation import map_parts
from .scheme import AbstractScheme, Step, StepField
from .wrapper import AbstractTransparentWrapper


class ExplicitRungeKutta(AbstractTransparentWrapper):
    """An explicit Runge–Kutta method of diffrax with unrolled stages,

        k_i = h F(t + c_i h, u_n + Σ_{j<i} a_ij k_j),   u_{n+1} = u_n + Σ_i b_i k_i.

    It is faster, and a token march can see each evaluation of the field."""

    solver: diffrax.AbstractERK

    # Only `solve` uses it.
    configurable: ClassVar[bool] = False

    def start(self, field: StepField, u: Array) -> PyTree:
        tableau = self.solver.tableau
        assert isinstance(tableau, diffrax.ButcherTableau)
        if not tableau.fsal:
            return None
        # Whether the last rate of the previous step is missing, and this rate.
        rate = eqx.filter_eval_shape(field.rate, 0, u)
        return True, jax.tree.map(jnp.zeros_like, rate)

    def make_step(self, field: StepField, u: Array, state: PyTree, made_jump: PyTree) -> Step:
        tableau = self.solver.tableau
        assert isinstance(tableau, diffrax.ButcherTableau)
        missing, last = (True, None) if state is None else state
        if made_jump is True or missing is True:
            rate = field.rate(0, u)
        else:
            is_stale = jnp.asarray(missing) | made_jump
            rate = lax.cond(is_stale, lambda: field.rate(0, u), lambda: last)
        increments = [field.increment(rate)]
        stage = u
        for row, node in zip(tableau.a_lower, tableau.c, strict=True):
            stage = combine(u, row, increments)
            rate = field.rate(node, stage)
            increments.append(field.increment(rate))
        if not tableau.ssal:
            stage = combine(u, tableau.b_sol, increments)
        error = combine(jnp.zeros_like(u), tableau.b_error, increments)
        state = (False, rate) if tableau.fsal else None
        return Step.between(u, stage, error=error, state=state, k=jnp.stack(increments))


def unroll_stages(solver: PyTree) -> PyTree:
    """Unrolls the stages of diffrax's explicit Runge–Kutta methods, also inside a scheme."""

    def unroll(method, _):
        overrides_step = type(method).step is not diffrax.AbstractERK.step
        return method if overrides_step else ExplicitRungeKutta(method)

    return map_parts(solver, diffrax.AbstractERK, unroll)


def combine(y: Array, coefficients: Iterable, increments: list[Array]) -> Array:
    """`y + Σ_j c_j k_j` without the terms whose coefficient is zero."""
    for c, increment in zip(map(float, coefficients), increments, strict=True):
        y = y if c == 0 else y + c * increment
    return y


@checked
class RK4(AbstractScheme):
    """The classical Runge–Kutta method,

        k_1 = h F(t_n, u_n),               k_2 = h F(t_n + h/2, u_n + k_1/2),
        k_3 = h F(t_n + h/2, u_n + k_2/2), k_4 = h F(t_n + h, u_n + k_3),

        u_{n+1} = u_n + (k_1 + 2 k_2 + 2 k_3 + k_4)/6.

    Order 4, without an error estimate. Reference: Kutta, Z. Math. Phys. 46 (1901).
    """

    interpolation_cls: ClassVar[Callable] = (
        diffrax.ThirdOrderHermitePolynomialInterpolation.from_k
    )
    fixed_order: ClassVar[int | None] = 4

    def make_step(self, field: StepField, u: Array, state: PyTree, made_jump: PyTree) -> Step:
        increments = [field(0, u)]
        for node in (1 / 2, 1 / 2, 1):
            increments.append(field(node, combine(u, (node,), increments[-1:])))
        y1 = combine(u, (1 / 6, 1 / 3, 1 / 3, 1 / 6), increments)
        return Step.between(u, y1, k=jnp.stack(increments))
