import diffrax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, PyTree

from ...equation import Depth
from ..base.scheme import AbstractScheme
from .exponential import LinearPart


class ETDAB2(AbstractScheme):
    """The exponential two-step method for `u_t = L u + N(t, u)`, L the linear operator of
    the block: Adams–Bashforth on N, L exact,

        u_{n+1} = e^{hL} u_n + h φ_1(hL) N_n + h φ_2(hL) (N_n - N_{n-1}).

    Second order. It starts, and starts again where the field jumps, with the two-stage
    exponential method ETD2RK; the weights of L are taken at the middle of the step.
    Reference: Cox, Matthews, J. Comput. Phys. 176 (2002).
    """

    def order(self, terms: PyTree[diffrax.AbstractTerm]) -> int:
        return 2

    def init(
        self,
        terms: PyTree[diffrax.AbstractTerm],
        t0: Depth,
        t1: Depth,
        y0: Array,
        args: PyTree,
    ) -> tuple:
        return y0, jnp.zeros_like(y0), jnp.asarray(t1 - t0), jnp.array(False)

    def step(
        self,
        terms: PyTree[diffrax.AbstractTerm],
        t0: Depth,
        t1: Depth,
        y0: Array,
        args: PyTree,
        solver_state: tuple,
        made_jump: PyTree,
    ) -> tuple:
        h = jnp.asarray(t1 - t0)
        state_before, field_before, last, known = solver_state
        part = LinearPart("ETDAB2", terms, t0 + 0.5 * h)
        control = terms.contr(t0, t1)
        field = (terms.vf_prod(t0, y0, args, control) / h).astype(y0.dtype)
        nonlinear = part.nonlinear(field, y0)
        euler = part.exponential(h, y0) + h * part.phi1(h, nonlinear)
        euler = euler.astype(y0.dtype)

        def from_history():
            # With the L of this step, so that a change of L does not look like one of N.
            return (nonlinear - part.nonlinear(field_before, state_before)) * (h / last)

        def from_a_stage():
            end = terms.vf_prod(t1, euler, args, control) / h
            return part.nonlinear(end, euler) - nonlinear

        change = lax.cond(
            known & ~jnp.asarray(made_jump),
            lambda: from_history().astype(y0.dtype),
            lambda: from_a_stage().astype(y0.dtype),
        )
        y1 = (euler + h * part.phi2(h, change)).astype(y0.dtype)
        state = (y0, field, h, jnp.array(True))
        return y1, None, dict(y0=y0, y1=y1), state, diffrax.RESULTS.successful
