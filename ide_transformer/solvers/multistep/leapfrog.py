from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool, PyTree

from ..base.reversible import AbstractCoupling, AbstractReversible, Pair, Pullback, Shear
from ..base.step import Step, StepField, Terms, U


class _Swap(AbstractCoupling):
    """The states of the pair change places."""

    def forward(self, pair: Pair) -> tuple[Pair, PyTree[Array]]:
        return (pair[1], pair[0]), ()

    def backward(self, pair: Pair, lost: PyTree[Array]) -> Pair:
        return pair[1], pair[0]

    def pullback(self, pair: Pair, lost: PyTree[Array], cotangents: Pair) -> Pullback:
        return (pair[1], pair[0]), (cotangents[1], cotangents[0]), self


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

    def order(self, terms: Terms) -> int:
        return 2

    def start(self, field: StepField, u: U) -> tuple:
        return jnp.asarray(field.t0), u

    def couplings(
        self, field: StepField, first: Bool[Array, ""] | bool
    ) -> tuple[AbstractCoupling, ...]:
        # The companion is the state before; a start covers half the distance.
        distance = jnp.where(first, 1, 2) * field.h
        return Shear(Partial(_increment, field, distance), target=1), _Swap()

    def make_step(self, field: StepField, u: U, state: PyTree, made_jump: PyTree) -> Step:
        # A start is the same formula from the present state over half the distance.
        before, u_before = jax.tree.map(
            lambda now, before: jnp.where(made_jump, now, before), self.start(field, u), state
        )
        increment = _increment(field, field.t1 - before, u)
        y1 = jax.tree.map(jnp.add, u_before, increment)
        return Step.between(u, y1, state=(jnp.asarray(field.t0, before.dtype), u))


def _increment(field: StepField, distance: Array, u: U) -> U:
    """`distance F(t_n, u)`."""
    control = field.terms.contr(jnp.zeros_like(distance), distance)
    return field.terms.vf_prod(field.t0, u, field.args, control)
