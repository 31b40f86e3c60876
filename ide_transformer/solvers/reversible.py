"""Reversible schemes, made of couplings: invertible maps of a pair of states."""

import abc
from collections.abc import Callable
from typing import Annotated, ClassVar, TypeAlias

import equinox as eqx
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, PyTree

from ..arguments import at_least, at_most, checked
from ..equation import AbstractRescaling
from .scheme import AbstractScheme, Step, StepField


# The state and its companion: the previous state, or a second approximation.
Pair: TypeAlias = tuple[Array, Array]

Pullback: TypeAlias = tuple[Pair, Pair, "AbstractCoupling"]


class AbstractCoupling(eqx.Module):
    """An invertible map of a pair of states. The inverse needs the new pair and `lost`, arrays
    whose size does not grow with the width of the state."""

    @abc.abstractmethod
    def forward(self, pair: Pair) -> tuple[Pair, PyTree[Array]]:
        """The new pair, and `lost`."""

    @abc.abstractmethod
    def backward(self, pair: Pair, lost: PyTree[Array]) -> Pair:
        """The old pair."""

    def pullback(self, pair: Pair, lost: PyTree[Array], cotangents: Pair) -> Pullback:
        """The old pair, its cotangent, and the cotangent of the coupling's arrays."""
        old = self.backward(pair, lost)
        _, pull = eqx.filter_vjp(lambda coupling, pair: coupling.forward(pair)[0], self, old)
        cotangent_coupling, cotangent_pair = pull(cotangents)
        return old, cotangent_pair, cotangent_coupling


# The couplings of a step, in order.
Couplings: TypeAlias = tuple[AbstractCoupling, ...]


@checked
class Shear(AbstractCoupling):
    """`x_i ← scale x_i + increment(x_j)`, where i is the `target` (0: the state, 1: its
    companion) and j is the other index. The scale must not be zero."""

    increment: Callable[[Array], Array]
    target: Annotated[int, at_least(0), at_most(1)] = eqx.field(static=True)
    scale: float = eqx.field(static=True, default=1.0)

    def forward(self, pair: Pair) -> tuple[Pair, PyTree[Array]]:
        old, other = self._split(pair)
        return self._pair(self.scale * old + self.increment(other), other), ()

    def backward(self, pair: Pair, lost: PyTree[Array]) -> Pair:
        new, other = self._split(pair)
        return self._pair((new - self.increment(other)) / self.scale, other)

    def pullback(self, pair: Pair, lost: PyTree[Array], cotangents: Pair) -> Pullback:
        # Evaluates the increment once for both directions.
        new, other = self._split(pair)
        cotangent_new, cotangent_other = self._split(cotangents)
        increment, pull = eqx.filter_vjp(lambda shear, x: shear.increment(x), self, other)
        cotangent_coupling, through_increment = pull(cotangent_new)
        old = (new - increment) / self.scale
        cotangents = self._pair(self.scale * cotangent_new, cotangent_other + through_increment)
        return self._pair(old, other), cotangents, cotangent_coupling

    def _split(self, pair: Pair) -> tuple[Array, Array]:
        return pair[self.target], pair[1 - self.target]

    def _pair(self, target: Array, other: Array) -> Pair:
        return (other, target) if self.target else (target, other)


class Retraction(AbstractCoupling):
    """A projection of the state, not of its companion."""

    constraint: AbstractRescaling

    def forward(self, pair: Pair) -> tuple[Pair, PyTree[Array]]:
        u, companion = pair
        return (self.constraint.project(u), companion), self.constraint.scales(u)

    def backward(self, pair: Pair, lost: PyTree[Array]) -> Pair:
        projected, companion = pair
        return self.constraint.unproject(projected, lost), companion


class AbstractReversible(AbstractScheme):
    """A scheme made of couplings of the state and a companion, which starts as the state."""

    @abc.abstractmethod
    def couplings(self, field: StepField, first: Array | bool) -> Couplings:
        """The couplings of a step; `first`: whether it is the first step of the solve."""


def couplings_of(solver: PyTree, field: StepField, first: Array | bool) -> Couplings | None:
    """The couplings of a step of `solver`; `None` if the solver is not reversible."""
    couplings = getattr(solver, "couplings", None)
    return None if couplings is None else couplings(field, first)


class _Swap(AbstractCoupling):
    def forward(self, pair: Pair) -> tuple[Pair, PyTree[Array]]:
        return (pair[1], pair[0]), ()

    def backward(self, pair: Pair, lost: PyTree[Array]) -> Pair:
        return pair[1], pair[0]


@checked
class Leapfrog(AbstractReversible):
    """The two-step midpoint rule,

        u_{n+1} = u_{n-1} + 2h F(t_n, u_n),   u_1 = u_0 + h F(0, u_0).

    Order 2, one evaluation a step, and reversible. It is stable for oscillations only, so use
    it over moderate depths. It restarts where the field jumps, so use a continuous control such
    as `PiecewiseLinear`. Reference: Shampine, Appl. Math. Comput. 208 (2009).
    """

    restarts: ClassVar[bool] = True
    fixed_order: ClassVar[int | None] = 2

    def start(self, field: StepField, u: Array) -> Pair:
        """The previous depth and state."""
        return jnp.asarray(field.t0), u

    def couplings(self, field: StepField, first: Array | bool) -> Couplings:
        # The first step covers h instead of 2h.
        distance = jnp.where(first, 1, 2) * field.h
        return Shear(Partial(_increment, field, distance), target=1), _Swap()

    def make_step(self, field: StepField, u: Array, state: PyTree, made_jump: PyTree) -> Step:
        before = jnp.where(made_jump, field.t0, state[0])
        u_before = jnp.where(made_jump, u, state[1])
        y1 = u_before + _increment(field, jnp.asarray(field.t1 - before), u)
        return Step.between(u, y1, state=(jnp.asarray(field.t0, before.dtype), u))


def _increment(field: StepField, distance: Array, u: Array) -> Array:
    """`distance F(t_n, u)`."""
    control = field.terms.contr(jnp.zeros_like(distance), distance)
    return field.terms.vf_prod(field.t0, u, field.args, control)
