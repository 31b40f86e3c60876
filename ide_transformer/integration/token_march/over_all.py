"""Steps of new tokens, whose integrals run over all tokens so far."""

from collections.abc import Callable
from dataclasses import replace

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ...equation import (
    AbstractTokenIntegral,
    AbstractWrappedOperator,
    Depth,
    OperatorField,
    State,
    TokenDomain,
    map_parts,
)
from ..march import Carry, Steps
from .programs import mark


def interval_over_all(
    steps: Steps, seen: TokenDomain
) -> Callable[[Array, PyTree, Depth, PyTree], tuple[Array, PyTree]]:
    """The steps of one interval, written out, as a program with marks. Where a step
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

    def change(field, _):
        return replace(field, block_at=_BlockOverAll(field.block_at, seen))

    return map_parts(terms, OperatorField, change)


class _BlockOverAll(eqx.Module):
    block_at: Callable[[Depth], PyTree]
    seen: TokenDomain

    def __call__(self, t: Depth) -> PyTree:
        return block_over_all(self.block_at(t), self.seen)


def block_over_all(block: PyTree, seen: TokenDomain) -> PyTree:
    """A block with its token integrals over all tokens, `seen`."""
    return map_parts(block, AbstractTokenIntegral, lambda part, _: _OverAll(part, seen))


class _OverAll(AbstractWrappedOperator):
    """A token integral over all tokens; the state holds the newest of them."""

    operator: AbstractTokenIntegral
    seen: TokenDomain

    configurable = False

    @property
    def pointwise(self) -> bool:
        """The other tokens are cached."""
        return True

    def __call__(self, u: State, domain: TokenDomain) -> State:
        def others(new, _):
            return mark(new, axis=u.ndim - 2, size=self.seen.num_tokens), self.seen

        return self.operator.over(u, domain, others)
