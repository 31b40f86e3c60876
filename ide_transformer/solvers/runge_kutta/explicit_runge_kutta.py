from typing import Any, ClassVar

import diffrax
from jaxtyping import PyTree

from ..base.replace import replace_schemes
from ..base.wrapper import AbstractWrapper
from .stages import AbstractExplicitStages, Tableau


class ExplicitRungeKutta(
    AbstractExplicitStages, AbstractWrapper, diffrax.AbstractAdaptiveSolver
):
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

    @property
    def tableau(self) -> Tableau:
        tableau: Any = self.solver.tableau
        return Tableau(
            rows=tableau.a_lower,
            nodes=tableau.c,
            weights=tableau.b_sol,
            error_weights=tableau.b_error,
            ends_in_last_stage=tableau.ssal,
            first_is_last=tableau.fsal,
        )


def unrolled(solver: PyTree) -> PyTree:
    """`solver` with the explicit Runge–Kutta methods of diffrax inside it written out, but
    for those with a step of their own."""

    def written_out(method):
        plain = type(method).step is diffrax.AbstractERK.step
        return ExplicitRungeKutta(method) if plain else method

    return replace_schemes(solver, diffrax.AbstractERK, written_out)
