"""Operators that couple tokens, through what they remember of each."""

import abc
from collections.abc import Callable
from typing import TypeAlias

from jaxtyping import Array, Float, PyTree

from ..domain import TokenDomain
from .operator import AbstractOperator


# What is remembered of the tokens of a domain to what is remembered of all that can be seen,
# and their domain.
Others: TypeAlias = Callable[[PyTree[Array], TokenDomain], tuple[PyTree[Array], TokenDomain]]


class AbstractTokenIntegral(AbstractOperator):
    """An integral operator over tokens that sees of other tokens only what it remembers of
    each,

        A(u)(x) = R(u(x), M(u(x')) for x' ∈ Ω_x(x)),

    M the keys and values of attention. Where Ω_x(x) holds no tokens after x, a march can so
    go on with new tokens alone: what M gave of the others does not change.
    """

    @property
    @abc.abstractmethod
    def causal(self) -> bool:
        """Whether no x' after x lies in Ω_x(x)."""

    @abc.abstractmethod
    def over(
        self,
        u: Float[Array, "*batch tokens features"],
        domain: TokenDomain,
        others: Others,
    ) -> Float[Array, "*batch tokens features"]:
        """The rate, integrated over more tokens than those of u.

        **Arguments:**

        - `others`: is called once, with `M(u)`, arrays `[..., tokens, …]`, and the domain of
          u; gives M of all tokens over which the integral runs, and theirs.
        """

    def __call__(
        self, u: Float[Array, "*batch tokens features"], domain: TokenDomain
    ) -> Float[Array, "*batch tokens features"]:
        return self.over(u, domain, lambda remembered, domain: (remembered, domain))
