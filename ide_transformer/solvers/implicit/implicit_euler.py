from typing import ClassVar

import diffrax
from jaxtyping import Array

from ..base.step import Terms
from .implicit_scheme import AbstractOneStage


class ImplicitEuler(AbstractOneStage, diffrax.AbstractAdaptiveSolver):
    """The implicit Euler method,

        u_{n+1} = u_n + h F(t_{n+1}, u_{n+1}),

    solved by Newton–Krylov. First order, for stiff fields; the error estimate compares it
    with the trapezoidal rule.

    **Arguments:**

    - `tolerance`: of Newton's method, relative and absolute; by default one that fits the
      dtype of the state.
    """

    node: ClassVar[float] = 1.0

    def order(self, terms: Terms) -> int:
        return 1

    def error_order(self, terms: Terms) -> int:
        return 2

    def error(self, increment: Array, explicit: Array) -> Array:
        return 0.5 * (increment - explicit)
