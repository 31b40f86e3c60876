"""The right-hand side as diffrax terms, one for each operator."""

from collections.abc import Callable

import diffrax
import equinox as eqx
import jax
from jaxtyping import Array, Float, PyTree

from .constraints import AbstractConstraint
from .depth import Depth
from .domain import TokenDomain
from .operators import AbstractOperator


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

    def __call__(
        self,
        t: Depth,
        u: Float[Array, "*batch tokens features"],
        args: PyTree,
    ) -> Float[Array, "*batch tokens features"]:
        return self.constraint(t).tangent(u, self.operator(t)(u, self.domain))

    def operator(self, t: Depth) -> AbstractOperator:
        """The operator at depth `t`."""
        return self.block_at(t)[self.index]

    def constraint(self, t: Depth) -> AbstractConstraint:
        """The constraint of this operator at depth `t`."""
        constraint = self.constraint_at(t)
        if isinstance(constraint, AbstractConstraint):
            return constraint
        return constraint[self.index]


class UnconstrainedField(eqx.Module):
    """One operator without the constraint, `(t, u, args) ↦ A_i(u; θ(t))`."""

    field: OperatorField

    def __call__(
        self,
        t: Depth,
        u: Float[Array, "*batch tokens features"],
        args: PyTree,
    ) -> Float[Array, "*batch tokens features"]:
        return self.field.operator(t)(u, self.field.domain)


def make_terms(
    block_at: Callable, constraint_at: Callable, domain: TokenDomain, num_operators: int
) -> diffrax.MultiTerm:
    """One `diffrax.ODETerm` for each operator of the block."""
    return diffrax.MultiTerm(
        *(
            diffrax.ODETerm(OperatorField(block_at, constraint_at, domain, index))  # pyright: ignore[reportArgumentType]
            for index in range(num_operators)
        )
    )


def operator_fields(terms: PyTree) -> list[OperatorField]:
    """The operator fields inside any tree of terms, in order."""
    leaves = jax.tree.leaves(terms, is_leaf=lambda x: isinstance(x, OperatorField))
    return [leaf for leaf in leaves if isinstance(leaf, OperatorField)]


def frozen(terms: PyTree, t: Depth) -> PyTree:
    """The same terms with their weights held at those of depth `t`."""

    def hold(field):
        block, constraint = field.block_at(t), field.constraint_at(t)
        return OperatorField(_Held(block), _Held(constraint), field.domain, field.index)

    return jax.tree.map(
        lambda x: hold(x) if isinstance(x, OperatorField) else x,
        terms,
        is_leaf=lambda x: isinstance(x, OperatorField),
    )


class _Held(eqx.Module):
    value: PyTree

    def __call__(self, t: Depth) -> PyTree:
        return self.value


def without_constraint(terms: PyTree) -> PyTree:
    """The same terms with the fields of their operators unconstrained."""
    return jax.tree.map(
        lambda x: UnconstrainedField(x) if isinstance(x, OperatorField) else x,
        terms,
        is_leaf=lambda x: isinstance(x, OperatorField | UnconstrainedField),
    )
