import diffrax
import equinox as eqx
from jaxtyping import Array, PyTree

from ...equation import Depth
from ..base.evaluation_count import EvaluationCount
from .implicit_scheme import AbstractImplicitScheme
from .newton_krylov import find_root


class ImplicitEuler(AbstractImplicitScheme, diffrax.AbstractAdaptiveSolver):
    """The implicit Euler method,

        u_{n+1} = u_n + h F(t_{n+1}, u_{n+1}),

    solved by Newton–Krylov. First order, for stiff fields; the error estimate compares it
    with the trapezoidal rule.

    **Arguments:**

    - `tolerance`: of Newton's method, relative and absolute; by default one that fits the
      dtype of the state.
    """

    tolerance: float | None = eqx.field(static=True, default=None)

    def order(self, terms: PyTree[diffrax.AbstractTerm]) -> int:
        return 1

    def error_order(self, terms: PyTree[diffrax.AbstractTerm]) -> int:
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
        explicit = terms.vf_prod(t0, y0, args, control)
        y1, result, evaluations = find_root(
            _residual, y0 + explicit, (terms, t1, y0, control, args), tolerance=self.tolerance
        )
        error = 0.5 * (y1 - y0 - explicit)
        made = EvaluationCount(solver_state.count + 1 + evaluations)
        return y1, error, dict(y0=y0, y1=y1), made, diffrax.RESULTS.promote(result)


def _residual(y1: Array, inputs: tuple) -> Array:
    terms, t1, y0, control, args = inputs
    return y1 - y0 - terms.vf_prod(t1, y1, args, control)
