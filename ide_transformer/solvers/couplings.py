"""Steps that can be undone: a pair of states, of which each coupling changes one."""

import abc
from collections.abc import Callable
from typing import Annotated, TypeAlias

import equinox as eqx
from jaxtyping import Array, Bool, PyTree
from pydantic import Field

from ..equation import AbstractRescaling
from .scheme import AbstractFieldScheme, StepField


# The state and its companion: the state before, or a second approximation of it.
Pair: TypeAlias = tuple[Array, Array]

# The old pair, the cotangents of it, and those of the arrays in the coupling.
Pullback: TypeAlias = tuple[Pair, Pair, "AbstractCoupling"]


class AbstractCoupling(eqx.Module):
    """An invertible map of a pair of states.

    `forward` also returns the part of the old pair that the new pair alone cannot give back:
    `lost`, of a size that does not grow with the width of the state.
    """

    @abc.abstractmethod
    def forward(self, pair: Pair) -> tuple[Pair, PyTree[Array]]:
        """The new pair, and what is lost of the old one."""

    @abc.abstractmethod
    def backward(self, pair: Pair, lost: PyTree[Array]) -> Pair:
        """The old pair."""

    @abc.abstractmethod
    def pullback(self, pair: Pair, lost: PyTree[Array], cotangents: Pair) -> Pullback:
        """All three; each increment is evaluated once."""


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
    a scale or two of each token, which are kept to undo it.

    **Arguments:**

    - `constraint`: S.
    """

    constraint: AbstractRescaling

    def forward(self, pair: Pair) -> tuple[Pair, PyTree[Array]]:
        u, companion = pair
        return (self.constraint.project(u), companion), self.constraint.scales(u)

    def backward(self, pair: Pair, lost: PyTree[Array]) -> Pair:
        projected, companion = pair
        return self.constraint.unproject(projected, lost), companion

    def pullback(self, pair: Pair, lost: PyTree[Array], cotangents: Pair) -> Pullback:
        u, companion = self.backward(pair, lost)
        cotangent_projected, cotangent_companion = cotangents
        _, pull = eqx.filter_vjp(lambda r, x: r.constraint.project(x), self, u)
        cotangent_coupling, cotangent_u = pull(cotangent_projected)
        return (u, companion), (cotangent_u, cotangent_companion), cotangent_coupling


Couplings: TypeAlias = Callable[..., tuple[AbstractCoupling, ...]]


class AbstractReversible(AbstractFieldScheme):
    """A scheme whose step is made of couplings of the state and a companion, which at first
    is a copy of the state."""

    @abc.abstractmethod
    def couplings(
        self, field: StepField, first: Bool[Array, ""] | bool
    ) -> tuple[AbstractCoupling, ...]:
        """The couplings that make up a step, in order.

        **Arguments:**

        - `field`: the field over the step.
        - `first`: whether it is the first step.
        """


def find_couplings(solver: PyTree) -> Couplings | None:
    """The couplings of the steps of a scheme, `couplings(terms, t0, t1, args, first)`; `None`
    for one that cannot be undone."""
    own = getattr(solver, "couplings", None)
    if own is None:
        return None
    return lambda terms, t0, t1, args, first: own(StepField(terms, t0, t1, args), first)
