"""Steps of new tokens, whose integrals run over all tokens so far."""

from collections.abc import Callable

import diffrax
import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, PyTree

from ...equation import (
    AbstractOperator,
    AbstractTokenIntegral,
    Depth,
    Equation,
    OperatorField,
    TokenDomain,
)
from .cache import remember


def interval_over_all(
    equation: Equation,
    seen: TokenDomain,
    solver: diffrax.AbstractSolver,
    steps_per_interval: int,
    dtype: np.dtype,
) -> Callable[[Array, PyTree, Depth, PyTree], tuple[Array, PyTree]]:
    """The steps of one interval, written out, as a program for `with_memory`."""
    length = equation.control.interval_length
    offsets = (length * np.arange(steps_per_interval + 1) / steps_per_interval).astype(dtype)

    def interval(u, solver_state, index, weights):
        terms = over_all(equation.interval_terms(index, weights), seen)
        for i in range(steps_per_interval):
            t0, t1 = index * length + offsets[i], index * length + offsets[i + 1]
            made_jump = i == 0 and not equation.continuous
            u, _, _, solver_state, _ = solver.step(
                terms, t0, t1, u, None, solver_state, made_jump
            )
        return u, solver_state

    return interval


def over_all(terms: PyTree[diffrax.AbstractTerm], seen: TokenDomain) -> PyTree:
    """The terms with their token integrals over all tokens, `seen`."""

    def is_field(x):
        return isinstance(x, OperatorField)

    return jax.tree.map(
        lambda x: (
            OperatorField(_BlockOverAll(x.block_at, seen), x.constraint_at, x.domain, x.index)
            if is_field(x)
            else x
        ),
        terms,
        is_leaf=is_field,
    )


class _BlockOverAll(eqx.Module):
    """A block as a function of depth, its token integrals over all tokens."""

    block_at: Callable[[Depth], PyTree]
    seen: TokenDomain

    def __call__(self, t: Depth) -> PyTree:
        return remembering(self.block_at(t), self.seen)


def remembering(block: PyTree, seen: TokenDomain) -> PyTree:
    """A block with its token integrals over all tokens, `seen`, of which the state holds the
    newest."""
    return jax.tree.map(
        lambda x: _OverAll(x, seen) if is_integral(x) else x, block, is_leaf=is_integral
    )


def is_integral(x: PyTree) -> bool:
    """Whether x is a token integral."""
    return isinstance(x, AbstractTokenIntegral)


class _OverAll(AbstractOperator):
    """A token integral over all tokens, of which the state holds the newest."""

    operator: AbstractTokenIntegral
    seen: TokenDomain

    # The others are remembered.
    pointwise = True

    def __call__(
        self, u: Float[Array, "*batch tokens features"], domain: TokenDomain
    ) -> Float[Array, "*batch tokens features"]:
        def others(new, _):
            every = remember(new, axis=u.ndim - 2, tokens=self.seen.num_tokens)
            return every, self.seen

        return self.operator.over(u, domain, others)
