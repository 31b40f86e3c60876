"""The right-hand side as diffrax terms, one for each operator."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import diffrax
import equinox as eqx
from jaxtyping import PyTree

from .constraints.sets import AbstractConstraint
from .domain import TokenDomain
from .operators.operator import AbstractOperator
from .shapes import Depth, State
from .tree import map_parts, parts


class OperatorField(eqx.Module):
    """The vector field of one operator, `(t, u, args) ↦ tangent(u, A_i(u; θ(t)))`.

    It knows its constraint, so that a projecting scheme can find it in the terms.

    **Arguments:**

    - `block_at`, `constraint_at`: depth to the block and to the constraint there (one for
      all operators, or a tuple with one for each).
    - `domain`: the token domain.
    - `index`: i, which operator of the block.
    - `clock`: from the depth of a scheme to that of the weights; by default the same.
    """

    block_at: Callable[[Depth], PyTree]
    constraint_at: Callable[[Depth], PyTree]
    domain: TokenDomain
    index: int = eqx.field(static=True)
    clock: Callable[[Depth], Depth] | None = None

    def __call__(self, t: Depth, u: State, args: PyTree) -> State:
        return self.constraint(t).tangent(u, self.rate(t, u, args))

    def rate(self, t: Depth, u: State, args: PyTree) -> State:
        """`A_i(u; θ(t))`, in the dtype of the state."""
        return self.operator(t, args)(u, self.domain).astype(u.dtype)

    def operator(self, t: Depth, args: PyTree) -> AbstractOperator:
        """The operator at depth `t`, given the `args` of `solve`."""
        t = self._weights_of(t)
        return self.block_at(t)[self.index].at(t, args)

    def constraint(self, t: Depth) -> AbstractConstraint:
        """The constraint of this operator at depth `t`."""
        constraint = self.constraint_at(self._weights_of(t))
        if isinstance(constraint, AbstractConstraint):
            return constraint
        return constraint[self.index]

    def _weights_of(self, t: Depth) -> Depth:
        return t if self.clock is None else self.clock(t)


class UnconstrainedField(OperatorField):
    """One operator without the constraint, `(t, u, args) ↦ A_i(u; θ(t))`."""

    def __call__(self, t: Depth, u: State, args: PyTree) -> State:
        return self.rate(t, u, args)


def make_terms(
    block_at: Callable, constraint_at: Callable, domain: TokenDomain, num_operators: int
) -> diffrax.MultiTerm:
    """One `diffrax.ODETerm` for each operator of the block."""
    fields: list[Any] = [
        OperatorField(block_at, constraint_at, domain, index) for index in range(num_operators)
    ]
    return diffrax.MultiTerm(*map(diffrax.ODETerm, fields))


def operator_fields(terms: PyTree) -> list[OperatorField]:
    """The operator fields inside any tree of terms, in order."""
    return parts(terms, OperatorField)


def frozen(terms: PyTree, t: Depth) -> PyTree:
    """Freeze the weights of terms at depth `t`."""
    return _with_clock(terms, lambda clock: _Slow(clock, t, 0.0))


def slowed(terms: PyTree, start: Depth, factor: int) -> PyTree:
    """Slow the weights of terms down by `factor`, from `start` on."""
    return _with_clock(terms, lambda clock: _Slow(clock, start, 1 / factor))


def _with_clock(terms: PyTree, change: Callable[[Any], Any]) -> PyTree:
    # `replace` keeps a field without constraint so.
    return map_parts(
        terms, OperatorField, lambda field, _: replace(field, clock=change(field.clock))
    )


class _Slow(eqx.Module):
    """A clock that goes at a `rate` from `start` on, read by another one."""

    inner: Callable[[Depth], Depth] | None
    start: Depth
    rate: float = eqx.field(static=True)

    def __call__(self, t: Depth) -> Depth:
        t = self.start + self.rate * (t - self.start) if self.rate else self.start
        return t if self.inner is None else self.inner(t)


def without_constraint(terms: PyTree) -> PyTree:
    """Remove the constraint from the fields of terms."""

    def free(field, _):
        return UnconstrainedField(
            *(field.block_at, field.constraint_at, field.domain, field.index, field.clock)
        )

    return map_parts(terms, OperatorField, free)
