"""The equation with some of its tokens held still."""

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from .constraints.sets import AbstractConstraint, Free
from .domain import TokenDomain
from .operators.exact import AbstractExactOperator, AbstractLinearOperator, Spectral
from .operators.operator import AbstractOperator, AbstractWrappedOperator
from .shapes import Depth, Features, State
from .terms import OperatorField
from .tree import map_parts


def holding(terms: PyTree, moving: Bool[Array, "*batch tokens"]) -> PyTree:
    """The terms of

        u_t(x) = m(x) Σ_i A_i(u)(x),   m(x) ∈ {0, 1},

    in which the tokens with m = 0 keep their state, and the others still see it.

    **Arguments:**

    - `moving`: m.
    """
    moving = moving[..., None]

    def change(field, _):
        block_at = _HeldBlock(field.block_at, moving)
        constraint_at = _HeldConstraints(field.constraint_at, moving)
        return replace(field, block_at=block_at, constraint_at=constraint_at)

    return map_parts(terms, OperatorField, change)


class _HeldBlock(eqx.Module):
    block_at: Callable[[Depth], PyTree]
    moving: Array

    def __call__(self, t: Depth) -> PyTree:
        return tuple(_held(operator, self.moving) for operator in self.block_at(t))


class _HeldConstraints(eqx.Module):
    constraint_at: Callable[[Depth], PyTree]
    moving: Array

    def __call__(self, t: Depth) -> PyTree:
        def change(constraint, _):
            free = isinstance(constraint, Free)
            return constraint if free else _HeldConstraint(constraint, self.moving)

        return map_parts(self.constraint_at(t), AbstractConstraint, change)


class _Held(AbstractWrappedOperator):
    """`du/dt = m ⊙ A(u)`."""

    moving: Bool[Array, "*batch tokens 1"]

    configurable: ClassVar[bool] = False

    def __call__(self, u: State, domain: TokenDomain) -> State:
        return jnp.where(self.moving, self.operator(u, domain), 0)


class _HeldExact(_Held, AbstractExactOperator):
    operator: AbstractExactOperator  # pyright: ignore[reportIncompatibleVariableOverride]

    @property
    def dissipative(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.operator.dissipative

    def flow(self, u: State, domain: TokenDomain, h: Depth) -> State:
        return jnp.where(self.moving, self.operator.flow(u, domain, h), u)


class _HeldLinear(_HeldExact, AbstractLinearOperator):
    operator: AbstractLinearOperator  # pyright: ignore[reportIncompatibleVariableOverride]

    def apply(self, function: Spectral, u: State, domain: TokenDomain) -> State:
        still = function(jnp.zeros((), u.dtype)) * u
        return jnp.where(self.moving, self.operator.apply(function, u, domain), still)


def _held(operator: AbstractOperator, moving: Array) -> AbstractOperator:
    """The held operator, of the kind by which schemes choose how to treat it."""
    kinds = {AbstractLinearOperator: _HeldLinear, AbstractExactOperator: _HeldExact}
    held = next((held for kind, held in kinds.items() if isinstance(operator, kind)), _Held)
    return held(operator, moving)


class _HeldConstraint(AbstractConstraint):
    """A constraint for the tokens that move."""

    constraint: AbstractConstraint
    moving: Bool[Array, "*batch tokens 1"]

    configurable: ClassVar[bool] = False

    def project(self, u: Features) -> Features:
        return jnp.where(self.moving, self.constraint.project(u), u)

    def tangent(self, u: Features, du: Features) -> Features:
        return jnp.where(self.moving, self.constraint.tangent(u, du), 0)

    def residual(self, u: Features) -> Float[Array, "*batch"]:
        return jnp.where(self.moving[..., 0], self.constraint.residual(u), 0)
