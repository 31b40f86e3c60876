from typing import ClassVar

import diffrax
import equinox as eqx
from jaxtyping import PyTree

from .stage import AbstractOneStage


class ImplicitMidpoint(AbstractOneStage):
    """The implicit midpoint rule,

        u_{n+1} = u_n + h F(t_n + h/2, (u_n + u_{n+1})/2),

    solved by Newton–Krylov. Second order, symmetric; it keeps quadratic invariants.
    Reference: Hairer, Lubich, Wanner, Geometric Numerical Integration, section II.1.

    **Arguments:**

    - `tolerance`: of Newton's method, relative and absolute; by default one that fits the
      dtype of the state.
    """

    tolerance: float | None = eqx.field(static=True, default=None)

    node: ClassVar[float] = 0.5

    def order(self, terms: PyTree[diffrax.AbstractTerm]) -> int:
        return 2
