from typing import ClassVar

import diffrax
import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool, PyTree

from ...equation import Depth
from ..base.couplings import AbstractCoupling, Shear, Swap
from ..base.reversible import AbstractReversible


class Leapfrog(AbstractReversible):
    """The two-step midpoint rule,

        u_{n+1} = u_{n-1} + 2h F(t_n, u_n),   u_1 = u_0 + h F(0, u_0).

    Second order, one evaluation a step, and reversible: u_{n-1} follows from u_n and
    u_{n+1}. Stable for oscillations only, so take it over moderate depths. It starts again
    where the field jumps: on layers with one step each that is every step, so take it with
    a continuous control such as `PiecewiseLinear`. Reference: Shampine, Appl. Math. Comput.
    208 (2009).
    """

    restarts: ClassVar[bool] = True

    def order(self, terms: PyTree[diffrax.AbstractTerm]) -> int:
        return 2

    def init(
        self,
        terms: diffrax.AbstractTerm,
        t0: Depth,
        t1: Depth,
        y0: PyTree[Array],
        args: PyTree,
    ) -> tuple:
        return jnp.asarray(t0), y0

    def couplings(
        self,
        terms: diffrax.AbstractTerm,
        t0: Depth,
        t1: Depth,
        args: PyTree,
        first: Bool[Array, ""] | bool,
    ) -> tuple[AbstractCoupling, ...]:
        # The companion is the state before; a start covers half the distance.
        distance = jnp.where(first, 1, 2) * (t1 - t0)
        return Shear(Partial(_increment, terms, args, t0, distance), target=1), Swap()

    def step(
        self,
        terms: diffrax.AbstractTerm,
        t0: Depth,
        t1: Depth,
        y0: PyTree[Array],
        args: PyTree,
        solver_state: tuple,
        made_jump: PyTree,
    ) -> tuple:
        before, state_before = solver_state
        # A start is the same formula from the present state over half the distance.
        before = jnp.where(made_jump, t0, before)
        state_before = jax.tree.map(
            lambda u, u_before: jnp.where(made_jump, u, u_before), y0, state_before
        )
        increment = terms.vf_prod(t0, y0, args, terms.contr(before, t1))
        y1 = jax.tree.map(jnp.add, state_before, increment)
        state = (jnp.asarray(t0, before.dtype), y0)
        return y1, None, dict(y0=y0, y1=y1), state, diffrax.RESULTS.successful


def _increment(terms, args, t0, distance, u):
    return terms.vf_prod(t0, u, args, terms.contr(jnp.zeros_like(distance), distance))
