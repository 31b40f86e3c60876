from typing import ClassVar

from ..base.step import Terms
from .implicit_scheme import AbstractOneStage


class ImplicitMidpoint(AbstractOneStage):
    """The implicit midpoint rule,

        u_{n+1} = u_n + h F(t_n + h/2, (u_n + u_{n+1})/2),

    solved by Newton–Krylov. Second order, symmetric; it keeps quadratic invariants.
    Reference: Hairer, Lubich, Wanner, Geometric Numerical Integration, section II.1.

    **Arguments:**

    - `tolerance`: of Newton's method, relative and absolute; by default one that fits the
      dtype of the state.
    """

    node: ClassVar[float] = 0.5

    def order(self, terms: Terms) -> int:
        return 2
