"""The right-hand side as diffrax terms, one for each operator."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import diffrax
import equinox as eqx
from jaxtyping import PyTree

from .constraints.constraint import AbstractConstraint
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
    """

    block_at: Callable[[Depth], PyTree]
    constraint_at: Callable[[Depth], PyTree]
    domain: TokenDomain
    index: int = eqx.field(static=True)

    def __call__(self, t: Depth, u: State, args: PyTree) -> State:
        return self.constraint(t).tangent(u, self.rate(t, u, args))

    def rate(self, t: Depth, u: State, args: PyTree) -> State:
        """`A_i(u; θ(t))`, in the dtype of the state."""
        return self.operator(t).at(t, args)(u, self.domain).astype(u.dtype)

    def operator(self, t: Depth) -> AbstractOperator:
        """The operator at depth `t`."""
        return self.block_at(t)[self.index]

    def constraint(self, t: Depth) -> AbstractConstraint:
        """The constraint of this operator at depth `t`."""
        constraint = self.constraint_at(t)
        if isinstance(constraint, AbstractConstraint):
            return constraint
        return constraint[self.index]


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
    """The same terms with the weights of depth `t` at all depths."""

    def freeze(field, _):
        block, constraint = field.block_at(t), field.constraint_at(t)
        # `replace` keeps a field without constraint so.
        return replace(field, block_at=_Constant(block), constraint_at=_Constant(constraint))

    return map_parts(terms, OperatorField, freeze)


class _Constant(eqx.Module):
    value: PyTree

    def __call__(self, t: Depth) -> PyTree:
        return self.value


def without_constraint(terms: PyTree) -> PyTree:
    """The same terms with the fields of their operators unconstrained."""

    def free(field, _):
        return UnconstrainedField(
            field.block_at, field.constraint_at, field.domain, field.index
        )

    return map_parts(terms, OperatorField, free)
