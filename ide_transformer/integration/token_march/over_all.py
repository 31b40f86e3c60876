"""Steps of new tokens, whose integrals run over all tokens so far."""

from collections.abc import Callable

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ...equation import (
    AbstractOperator,
    AbstractTokenIntegral,
    Depth,
    OperatorField,
    TokenDomain,
)
from ..march import Carry, Steps
from .programs import mark


def interval_over_all(
    steps: Steps, seen: TokenDomain
) -> Callable[[Array, PyTree, Depth, PyTree], tuple[Array, PyTree]]:
    """The steps of one interval, written out, as a program for `with_cache`. Where a step
    fails, the state is NaN from there on."""

    def interval(u, solver_state, index, weights):
        terms = over_all(steps.equation.interval_terms(index, weights), seen)
        carry = Carry(u, solver_state, diffrax.RESULTS.successful)
        carry, _ = steps.advance(terms, steps.edges(index), carry, None, loop=False)
        succeeded = carry.result == diffrax.RESULTS.successful
        return jnp.where(succeeded, carry.u, jnp.nan), carry.solver_state

    return interval


def over_all(terms: PyTree[diffrax.AbstractTerm], seen: TokenDomain) -> PyTree:
    """The terms with their token integrals over all tokens, `seen`."""

    def replaced(x):
        if not _is_field(x):
            return x
        block_at = _BlockOverAll(x.block_at, seen)
        return OperatorField(block_at, x.constraint_at, x.domain, x.index)

    return jax.tree.map(replaced, terms, is_leaf=_is_field)


def _is_field(x: PyTree) -> bool:
    return isinstance(x, OperatorField)


class _BlockOverAll(eqx.Module):
    """A block as a function of depth, its token integrals over all tokens."""

    block_at: Callable[[Depth], PyTree]
    seen: TokenDomain

    def __call__(self, t: Depth) -> PyTree:
        return block_over_all(self.block_at(t), self.seen)


def block_over_all(block: PyTree, seen: TokenDomain) -> PyTree:
    """A block with its token integrals over all tokens, `seen`; the state holds the newest
    of them."""
    return jax.tree.map(
        lambda x: _OverAll(x, seen) if is_integral(x) else x, block, is_leaf=is_integral
    )


def is_integral(x: PyTree) -> bool:
    """Whether x is a token integral."""
    return isinstance(x, AbstractTokenIntegral)


class _OverAll(AbstractOperator):
    """A token integral over all tokens; the state holds the newest of them."""

    operator: AbstractTokenIntegral
    seen: TokenDomain

    configurable = False
    # The others are cached.
    pointwise = True

    def __call__(
        self, u: Float[Array, "*batch tokens features"], domain: TokenDomain
    ) -> Float[Array, "*batch tokens features"]:
        def others(new, _):
            return mark(new, axis=u.ndim - 2, size=self.seen.num_tokens), self.seen

        return self.operator.over(u, domain, others)
