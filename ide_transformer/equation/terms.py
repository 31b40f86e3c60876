"""The right-hand side as diffrax terms, one for each operator."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float, PyTree

from .arrays import Depth, Features, State
from .constraints import AbstractConstraint, Free
from .domain import TokenDomain
from .operators.operator import (
    AbstractLinearOperator,
    AbstractOperator,
    AbstractWrappedExactOperator,
    AbstractWrappedOperator,
    Spectral,
    by_kind,
)
from .tree import map_parts, parts


class OperatorField(eqx.Module):
    """The vector field of one operator, `(t, u, args) ↦ tangent(u, A_i(u; θ(t)))`."""

    # At a depth: the block, and one constraint or one for each operator.
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
        t = self._weights_of(t)
        return self.block_at(t)[self.index].at(t, args)

    def constraint(self, t: Depth) -> AbstractConstraint:
        constraint = self.constraint_at(self._weights_of(t))
        return constraint[self.index] if isinstance(constraint, tuple) else constraint

    def _weights_of(self, t: Depth) -> Depth:
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


def slowed(terms: PyTree, start: Depth, rate: float) -> PyTree:
    """The terms whose weights change at `rate` from depth `start` on; 0 freezes them."""
    return map_parts(
        terms,
        OperatorField,
        lambda field, _: replace(field, clock=_Slow(field.clock, start, rate)),
    )


class _Slow(eqx.Module):
    """A clock that runs at `rate` from `start` on, inside another clock."""

    inner: Callable[[Depth], Depth] | None
    start: Depth
    rate: float = eqx.field(static=True)

    def __call__(self, t: Depth) -> Depth:
        t = self.start + self.rate * (t - self.start) if self.rate else self.start
        return t if self.inner is None else self.inner(t)


def map_operators(terms: PyTree, kinds: tuple[type, ...], change: Callable) -> PyTree:
    """Changes operators or constraints of these kinds at each depth."""

    def changed(field: OperatorField, _: int) -> OperatorField:
        block_at = _Changed(field.block_at, kinds, change)
        constraint_at = _Changed(field.constraint_at, kinds, change)
        return replace(field, block_at=block_at, constraint_at=constraint_at)

    return map_parts(terms, OperatorField, changed)


class _Changed(eqx.Module):
    at: Callable[[Depth], PyTree]
    kinds: tuple[type, ...] = eqx.field(static=True)
    change: Callable

    def __call__(self, t: Depth) -> PyTree:
        return map_parts(self.at(t), self.kinds, lambda part, _: self.change(part))


def holding(terms: PyTree, moving: Bool[Array, "*batch tokens"]) -> PyTree:
    """The terms of `u_t(x) = m(x) Σ_i A_i(u)(x)`, m the `moving` tokens."""
    kinds = AbstractOperator, AbstractConstraint
    return map_operators(terms, kinds, Partial(_held, moving[..., None]))


def _held(moving: Array, part: Any) -> Any:
    if isinstance(part, AbstractConstraint):
        return part if isinstance(part, Free) else _HeldConstraint(part, moving)
    # The flow of tokens that see each other changes if some are held.
    held = by_kind(part, _Held, _HeldExact, _HeldLinear) if part.pointwise else _Held
    return held(part, moving)


class _Held(AbstractWrappedOperator):
    """`du/dt = m ⊙ A(u)`."""

    moving: Bool[Array, "*batch tokens 1"]

    configurable: ClassVar[bool] = False

    def at(self, t: Depth, args: PyTree) -> AbstractOperator:
        return _held(self.moving, self.operator.at(t, args))

    def __call__(self, u: State, domain: TokenDomain) -> State:
        return jnp.where(self.moving, self.operator(u, domain), 0)


class _HeldExact(_Held, AbstractWrappedExactOperator):
    def flow(self, u: State, domain: TokenDomain, h: Depth) -> State:
        return jnp.where(self.moving, self.operator.flow(u, domain, h), u)


class _HeldLinear(_HeldExact, AbstractLinearOperator):
    operator: AbstractLinearOperator  # pyright: ignore[reportIncompatibleVariableOverride]

    def apply(self, function: Spectral, u: State, domain: TokenDomain) -> State:
        still = function(jnp.zeros((), u.dtype)) * u
        return jnp.where(self.moving, self.operator.apply(function, u, domain), still)


class _HeldConstraint(AbstractConstraint):
    constraint: AbstractConstraint
    moving: Bool[Array, "*batch tokens 1"]

    configurable: ClassVar[bool] = False

    def project(self, u: Features) -> Features:
        return jnp.where(self.moving, self.constraint.project(u), u)

    def tangent(self, u: Features, du: Features) -> Features:
        return jnp.where(self.moving, self.constraint.tangent(u, du), 0)

    def residual(self, u: Features) -> Float[Array, "*batch"]:
        return jnp.where(self.moving[..., 0], self.constraint.residual(u), 0)
