from collections.abc import Callable
from typing import ClassVar

import diffrax
from jaxtyping import PyTree

from .stages import AbstractExplicitStages, Tableau


class RK4(AbstractExplicitStages):
    """The classical Runge–Kutta method,

        k_i = F(t + c_i h, u_n + h Σ_{j<i} a_ij k_j),   u_{n+1} = u_n + h Σ_i b_i k_i,

        c = (0, ½, ½, 1),   b = (1, 2, 2, 1)/6.

    Fourth order, four evaluations a step, no error estimate. Reference: Kutta, Z. Math.
    Phys. 46 (1901).
    """

    interpolation_cls: ClassVar[Callable] = (
        diffrax.ThirdOrderHermitePolynomialInterpolation.from_k
    )

    @property
    def tableau(self) -> Tableau:
        return Tableau(
            rows=((1 / 2,), (0, 1 / 2), (0, 0, 1)),
            nodes=(1 / 2, 1 / 2, 1),
            weights=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
        )

    def order(self, terms: PyTree[diffrax.AbstractTerm]) -> int:
        return 4
