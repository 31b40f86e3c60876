import diffrax
from jaxtyping import Array, PyTree

from ...equation import Depth
from ..base.scheme import AbstractScheme
from .exponential import LinearPart


class ExponentialEuler(AbstractScheme):
    """Exponential Euler for `u_t = L u + N(t, u)`, L the linear operator of the block,

        u_{n+1} = e^{hL} u_n + h φ_1(hL) N(t_n, u_n),   φ_1(z) = (e^z - 1)/z.

    First order, however stiff L is; the weights of L are taken at the middle of the step.
    Reference: Cox, Matthews, J. Comput. Phys. 176 (2002).
    """

    def order(self, terms: PyTree[diffrax.AbstractTerm]) -> int:
        return 1

    def step(
        self,
        terms: PyTree[diffrax.AbstractTerm],
        t0: Depth,
        t1: Depth,
        y0: Array,
        args: PyTree,
        solver_state: None,
        made_jump: PyTree,
    ) -> tuple:
        h = t1 - t0
        part = LinearPart("ExponentialEuler", terms, t0 + 0.5 * h)
        field = terms.vf_prod(t0, y0, args, terms.contr(t0, t1)) / h
        y1 = part.exponential(h, y0) + h * part.phi1(h, part.nonlinear(field, y0))
        y1 = y1.astype(y0.dtype)
        return y1, None, dict(y0=y0, y1=y1), None, diffrax.RESULTS.successful
