from collections.abc import Callable
from typing import ClassVar

import diffrax
from jaxtyping import PyTree

from ..base.scheme import AbstractFieldScheme
from ..base.step import Step, StepField, Terms, U
from .explicit_runge_kutta import combine, stacked


class RK4(AbstractFieldScheme):
    """The classical Runge–Kutta method,

        k_1 = h F(t_n, u_n),               k_2 = h F(t_n + h/2, u_n + k_1/2),
        k_3 = h F(t_n + h/2, u_n + k_2/2), k_4 = h F(t_n + h, u_n + k_3),

        u_{n+1} = u_n + (k_1 + 2 k_2 + 2 k_3 + k_4)/6.

    Fourth order, four evaluations a step, no error estimate. Reference: Kutta, Z. Math.
    Phys. 46 (1901).
    """

    interpolation_cls: ClassVar[Callable] = (
        diffrax.ThirdOrderHermitePolynomialInterpolation.from_k
    )

    def order(self, terms: Terms) -> int:
        return 4

    def make_step(self, field: StepField, u: U, state: PyTree, made_jump: PyTree) -> Step:
        increments = [field(0, u)]
        for node in (1 / 2, 1 / 2, 1):
            increments.append(field(node, combine(u, (node,), increments[-1:])))
        y1 = combine(u, (1 / 6, 1 / 3, 1 / 3, 1 / 6), increments)
        return Step.between(u, y1, k=stacked(increments))
