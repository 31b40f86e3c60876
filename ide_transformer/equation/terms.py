"""The right-hand side as diffrax terms, one per operator."""

from collections.abc import Callable
from dataclasses import replace

import diffrax
import equinox as eqx
from jaxtyping import PyTree

from .arrays import Depth, State
from .constraints import AbstractConstraint
from .domain import TokenDomain
from .operators.operator import AbstractOperator
from .tree import map_parts, parts


class OperatorField(eqx.Module):
    """The vector field of one operator, `(t, u, args) ↦ tangent(u, A_i(u; θ(t)))`."""

    # Functions of depth: the block, and the constraint or one constraint for each operator.
    block_at: Callable[[Depth], PyTree]
    constraint_at: Callable[[Depth], PyTree]
    domain: TokenDomain
    index: int = eqx.field(static=True)
    # Maps the depth of the scheme to the depth of the weights.
    clock: Callable[[Depth], Depth] | None = None

    def __call__(self, t: Depth, u: State, args: PyTree) -> State:
        return self.along(t, u, self.rate(t, u, args))

    def along(self, t: Depth, u: State, du: State) -> State:
        """The part of a rate that is tangential to the constraint."""
        return self.constraint(t).tangent(u, du)

    def rate(self, t: Depth, u: State, args: PyTree) -> State:
        """`A_i(u; θ(t))`, in the dtype of the state."""
        return self.operator(t, args)(u, self.domain).astype(u.dtype)

    def operator(self, t: Depth, args: PyTree) -> AbstractOperator:
        t = self._clock_at(t)
        return self.block_at(t)[self.index].at(t, args)

    def constraint(self, t: Depth) -> AbstractConstraint:
        constraint = self.constraint_at(self._clock_at(t))
        return constraint[self.index] if isinstance(constraint, tuple) else constraint

    def _clock_at(self, t: Depth) -> Depth:
        return t if self.clock is None else self.clock(t)


class UnconstrainedField(OperatorField):
    """One operator without the constraint, `(t, u, args) ↦ A_i(u; θ(t))`."""

    def along(self, t: Depth, u: State, du: State) -> State:
        return du


def make_terms(
    block_at: Callable, constraint_at: Callable, domain: TokenDomain, num_operators: int
) -> diffrax.MultiTerm:
    fields = (OperatorField(block_at, constraint_at, domain, i) for i in range(num_operators))
    return diffrax.MultiTerm(*map(diffrax.ODETerm, fields))


def operator_fields(terms: PyTree) -> list[OperatorField]:
    return parts(terms, OperatorField)


def without_constraint(terms: PyTree) -> PyTree:
    return map_parts(terms, OperatorField, lambda field, _: UnconstrainedField(**vars(field)))


def slow_terms(terms: PyTree, start: Depth, rate: float) -> PyTree:
    """Slows the change of weights after depth `start` to `rate`; 0 freezes them."""
    return map_parts(
        terms,
        OperatorField,
        lambda field, _: replace(field, clock=_Slow(field.clock, start, rate)),
    )


class _Slow(eqx.Module):
    """A clock that runs at `rate` after `start`, composed with another clock."""

    inner: Callable[[Depth], Depth] | None
    start: Depth
    rate: float = eqx.field(static=True)

    def __call__(self, t: Depth) -> Depth:
        t = self.start + self.rate * (t - self.start) if self.rate else self.start
        return t if self.inner is None else self.inner(t)
