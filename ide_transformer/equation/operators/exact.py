"""Base classes of operators whose equation has a solution in closed form."""

import abc
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array

from ..domain import TokenDomain
from ..shapes import Depth, State
from .operator import AbstractOperator


if TYPE_CHECKING:
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar

# A function of the eigenvalues of an operator, entry by entry.
Spectral: TypeAlias = Callable[[Array], Array]


class AbstractExactOperator(AbstractOperator):
    """An operator that knows the flow of `u_t = A(u)`; splitting schemes use it in the
    place of their sub-solver."""

    # Whether the flow backwards in depth amplifies without bound, so that schemes with
    # negative sub-steps cannot use it.
    dissipative: AbstractVar[bool]

    @abc.abstractmethod
    def flow(self, u: State, domain: TokenDomain, h: Depth) -> State:
        """The solution of `u_t = A(u)` a depth `h` after `u`."""


class AbstractLinearOperator(AbstractExactOperator):
    """A linear operator A that is diagonal in a basis which it knows, so that any function
    of it can be applied: its flow is `exp(h A)`, and exponential schemes need φ_k(h A)."""

    @abc.abstractmethod
    def apply(self, function: Spectral, u: State, domain: TokenDomain) -> State:
        """`function(A) u`, by applying `function` to the eigenvalues of A."""

    def __call__(self, u: State, domain: TokenDomain) -> State:
        return self.apply(lambda eigenvalues: eigenvalues, u, domain)

    def flow(self, u: State, domain: TokenDomain, h: Depth) -> State:
        return self.apply(lambda eigenvalues: jnp.exp(h * eigenvalues), u, domain)
