from jaxtyping import Array

from ..base.scheme import AbstractOneStep
from ..base.step import StepField, Terms
from .linear_part import LinearPart


class ExponentialEuler(AbstractOneStep):
    """Exponential Euler for `u_t = L u + N(t, u)`, L the linear operator of the block,

        u_{n+1} = e^{hL} u_n + h φ_1(hL) N(t_n, u_n),   φ_1(z) = (e^z - 1)/z.

    First order, however stiff L is; the weights of L are taken at the middle of the step.
    Reference: Cox, Matthews, J. Comput. Phys. 176 (2002).
    """

    def order(self, terms: Terms) -> int:
        return 1

    def advance(self, field: StepField, u: Array) -> Array:
        h, part = field.h, LinearPart("ExponentialEuler", field)
        nonlinear = part.nonlinear(field(0, u) / h, u)
        return (part.exponential(h, u) + h * part.phi1(h, nonlinear)).astype(u.dtype)
