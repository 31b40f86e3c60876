from collections.abc import Iterable
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import PyTree

from ..base.step import Step, StepField, U
from ..base.wrapper import AbstractWrapper, replace_schemes


class ExplicitRungeKutta(AbstractWrapper, diffrax.AbstractAdaptiveSolver):
    """An explicit Runge–Kutta method of diffrax, its stages written out one after the other,

        k_i = h F(t + c_i h, u_n + Σ_{j<i} a_ij k_j),   u_{n+1} = u_n + Σ_i b_i k_i.

    diffrax runs them in a loop over a buffer of stages, which is quick to compile. Written
    out they are as fast as by hand, and each evaluation of the field can be told apart.

    `solve` puts it around the explicit methods of diffrax when steps are fixed.

    **Arguments:**

    - `solver`: the method, for its tableau.
    """

    solver: diffrax.AbstractERK

    # `solve` puts it in by itself.
    configurable: ClassVar[bool] = False

    def start(self, field: StepField, u: U) -> PyTree:
        tableau: Any = self.solver.tableau
        if not tableau.fsal:
            return None
        # Whether the rate at the end of the step before is missing, and that rate.
        rate = eqx.filter_eval_shape(field.rate, 0, u)
        return True, jax.tree.map(jnp.zeros_like, rate)

    def make_step(self, field: StepField, u: U, state: PyTree, made_jump: PyTree) -> Step:
        tableau: Any = self.solver.tableau
        rate, stage = self._first_rate(field, u, state, made_jump), u
        increments = [field.increment(rate)]
        for row, node in zip(tableau.a_lower, tableau.c, strict=True):
            stage = combine(u, row, increments)
            rate = field.rate(node, stage)
            increments.append(field.increment(rate))
        if not tableau.ssal:
            stage = combine(u, tableau.b_sol, increments)
        error = combine(jax.tree.map(jnp.zeros_like, u), tableau.b_error, increments)
        state = (False, rate) if tableau.fsal else None
        return Step.between(u, stage, error=error, state=state, k=stacked(increments))

    def _first_rate(self, field: StepField, u: U, state: PyTree, made_jump: PyTree) -> U:
        missing, last = (True, None) if state is None else state
        if made_jump is True or missing is True:
            return field.rate(0, u)
        return lax.cond(
            jnp.asarray(missing) | made_jump, lambda: field.rate(0, u), lambda: last
        )


def unrolled(solver: PyTree) -> PyTree:
    """`solver` with the explicit Runge–Kutta methods of diffrax inside it written out, but
    for those with a step of their own."""

    def written_out(method):
        plain = type(method).step is diffrax.AbstractERK.step
        return ExplicitRungeKutta(method) if plain else method

    return replace_schemes(solver, diffrax.AbstractERK, written_out)


def combine(y: U, coefficients: Iterable, increments: list[U]) -> U:
    """`y + Σ_j c_j k_j`; a coefficient that is zero costs nothing."""
    for c, increment in zip(map(float, coefficients), increments, strict=True):
        if c != 0:
            y = jax.tree.map(lambda u, k, c=c: u + c * k, y, increment)
    return y


def stacked(increments: list[U]) -> U:
    """The increments along a first axis, for the interpolations of diffrax."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *increments)
