import diffrax
import equinox as eqx
from jaxtyping import Array, PyTree

from ...equation import Depth
from ..base.evaluation_count import EvaluationCount
from .implicit_scheme import AbstractImplicitScheme
from .newton_krylov import find_root


class ImplicitMidpoint(AbstractImplicitScheme):
    """The implicit midpoint rule,

        u_{n+1} = u_n + h F(t_n + h/2, (u_n + u_{n+1})/2),

    solved by Newton–Krylov. Second order, symmetric; it keeps quadratic invariants.
    Reference: Hairer, Lubich, Wanner, Geometric Numerical Integration, section II.1.

    **Arguments:**

    - `tolerance`: of Newton's method, relative and absolute; by default one that fits the
      dtype of the state.
    """

    tolerance: float | None = eqx.field(static=True, default=None)

    def order(self, terms: PyTree[diffrax.AbstractTerm]) -> int:
        return 2

    def step(
        self,
        terms: diffrax.AbstractTerm,
        t0: Depth,
        t1: Depth,
        y0: Array,
        args: PyTree,
        solver_state: EvaluationCount,
        made_jump: PyTree,
    ) -> tuple:
        control = terms.contr(t0, t1)
        middle = t0 + 0.5 * (t1 - t0)
        guess = y0 + 0.5 * terms.vf_prod(t0, y0, args, control)
        stage, result, evaluations = find_root(
            _residual, guess, (terms, middle, y0, control, args), tolerance=self.tolerance
        )
        y1 = 2 * stage - y0
        made = EvaluationCount(solver_state.count + 1 + evaluations)
        return y1, None, dict(y0=y0, y1=y1), made, diffrax.RESULTS.promote(result)


def _residual(stage: Array, inputs: tuple) -> Array:
    terms, middle, y0, control, args = inputs
    return stage - y0 - 0.5 * terms.vf_prod(middle, stage, args, control)
