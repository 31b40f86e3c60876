"""Steps that can be undone: a pair of states, of which each coupling changes one."""

import abc
from collections.abc import Callable
from typing import Annotated, TypeAlias

import equinox as eqx
from jaxtyping import Array, PyTree
from pydantic import Field

from ..equation import AbstractRescaling
from .scheme import AbstractFieldScheme, StepField


# The state and its companion: the state before, or a second approximation of it.
Pair: TypeAlias = tuple[Array, Array]

Pullback: TypeAlias = tuple[Pair, Pair, "AbstractCoupling"]


class AbstractCoupling(eqx.Module):
    """An invertible map of a pair of states. `lost` is the part of the old pair that the new
    pair alone cannot give back, of a size that does not grow with the width of the state."""

    @abc.abstractmethod
    def forward(self, pair: Pair) -> tuple[Pair, PyTree[Array]]:
        """The new pair, and what is lost of the old one."""

    @abc.abstractmethod
    def backward(self, pair: Pair, lost: PyTree[Array]) -> Pair:
        """The old pair."""

    def pullback(self, pair: Pair, lost: PyTree[Array], cotangents: Pair) -> Pullback:
        """The old pair, and the cotangents of it and of the arrays in the coupling."""
        old = self.backward(pair, lost)
        _, pull = eqx.filter_vjp(lambda coupling, pair: coupling.forward(pair)[0], self, old)
        cotangent_coupling, cotangent_pair = pull(cotangents)
        return old, cotangent_pair, cotangent_coupling


# Of a step, in order.
Couplings: TypeAlias = tuple[AbstractCoupling, ...]


class Shear(AbstractCoupling):
    """`x_i ← scale x_i + increment(x_j)`, j ≠ i. The same increment undoes it, since x_j is
    still there.

    **Arguments:**

    - `increment`: a function of x_j.
    - `target`: i, 0 for the state, 1 for its companion.
    - `scale`: not zero.
    """

    increment: Callable[[Array], Array]
    target: Annotated[int, Field(ge=0, le=1)] = eqx.field(static=True)
    scale: float = eqx.field(static=True, default=1.0)

    def forward(self, pair: Pair) -> tuple[Pair, PyTree[Array]]:
        old, other = self._split(pair)
        return self._pair(self.scale * old + self.increment(other), other), ()

    def backward(self, pair: Pair, lost: PyTree[Array]) -> Pair:
        new, other = self._split(pair)
        return self._pair((new - self.increment(other)) / self.scale, other)

    def pullback(self, pair: Pair, lost: PyTree[Array], cotangents: Pair) -> Pullback:
        # The increment, which both directions need, is evaluated once.
        new, other = self._split(pair)
        cotangent_new, cotangent_other = self._split(cotangents)
        increment, pull = eqx.filter_vjp(lambda shear, x: shear.increment(x), self, other)
        cotangent_coupling, more = pull(cotangent_new)
        old = (new - increment) / self.scale
        cotangents = self._pair(self.scale * cotangent_new, cotangent_other + more)
        return self._pair(old, other), cotangents, cotangent_coupling

    def _split(self, pair: Pair) -> tuple[Array, Array]:
        """x_i and x_j."""
        return pair[self.target], pair[1 - self.target]

    def _pair(self, target: Array, other: Array) -> Pair:
        return (other, target) if self.target else (target, other)


class Retraction(AbstractCoupling):
    """The state, not its companion, is projected on a constraint set. The projection loses
    a scale or two of each token, which are kept to undo it."""

    constraint: AbstractRescaling

    def forward(self, pair: Pair) -> tuple[Pair, PyTree[Array]]:
        u, companion = pair
        return (self.constraint.project(u), companion), self.constraint.scales(u)

    def backward(self, pair: Pair, lost: PyTree[Array]) -> Pair:
        projected, companion = pair
        return self.constraint.unproject(projected, lost), companion


class AbstractReversible(AbstractFieldScheme):
    """A scheme whose step is made of couplings of the state and a companion, which at first
    is a copy of the state."""

    @abc.abstractmethod
    def couplings(self, field: StepField, first: Array | bool) -> Couplings:
        """The couplings that make up a step, or the `first` step."""


def couplings_of(solver: PyTree, field: StepField, first: Array | bool) -> Couplings | None:
    """The couplings of the steps of a scheme; `None` for one that cannot be undone."""
    couplings = getattr(solver, "couplings", None)
    return None if couplings is None else couplings(field, first)
