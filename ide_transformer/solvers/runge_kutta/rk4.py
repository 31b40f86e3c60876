from collections.abc import Callable
from typing import ClassVar

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ...equation import Depth
from ..base.combine import combine
from ..base.scheme import AbstractScheme


# The Butcher tableau: rows of A below the diagonal, nodes c, weights b.
_A = ((), (1 / 2,), (0, 1 / 2), (0, 0, 1))
_C = (0, 1 / 2, 1 / 2, 1)
_B = (1 / 6, 1 / 3, 1 / 3, 1 / 6)


class RK4(AbstractScheme):
    """The classical Runge–Kutta method,

        k_i = F(t + c_i h, u_n + h Σ_{j<i} a_ij k_j),   u_{n+1} = u_n + h Σ_i b_i k_i,

        c = (0, ½, ½, 1),   b = (1, 2, 2, 1)/6.

    Fourth order, four evaluations a step, no error estimate. Reference: Kutta, Z. Math.
    Phys. 46 (1901).
    """

    interpolation_cls: ClassVar[Callable] = (
        diffrax.ThirdOrderHermitePolynomialInterpolation.from_k
    )

    def order(self, terms: PyTree[diffrax.AbstractTerm]) -> int:
        return 4

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
        control = terms.contr(t0, t1)
        increments = []
        for a, c in zip(_A, _C, strict=True):
            # The end of the step is met exactly.
            t = t1 if c == 1 else t0 + c * (t1 - t0)
            stage = combine(y0, a, increments)
            increments.append(terms.vf_prod(t, stage, args, control))
        y1 = combine(y0, _B, increments)
        k = jax.tree.map(lambda *leaves: jnp.stack(leaves), *increments)
        return y1, None, dict(y0=y0, y1=y1, k=k), None, diffrax.RESULTS.successful
