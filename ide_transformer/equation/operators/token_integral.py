"""The base class of operators that couple tokens."""

import abc
from collections.abc import Callable
from typing import TypeAlias

from jaxtyping import Array, PyTree

from ..domain import TokenDomain
from ..shapes import State
from .operator import AbstractOperator


# From M of the tokens of a domain, and the domain, to M of all tokens that can be seen, and
# their domain.
Others: TypeAlias = Callable[[PyTree[Array], TokenDomain], tuple[PyTree[Array], TokenDomain]]


class AbstractTokenIntegral(AbstractOperator):
    """An integral operator over tokens that sees a map M of the other tokens only,

        A(u)(x) = R(u(x), M(u(x')) for x' ∈ Ω_x(x)).

    For attention, M gives keys and values. Where Ω_x(x) holds no tokens after x, M of the
    tokens so far does not change, so a march can keep it and go on with new tokens alone.
    """

    @property
    @abc.abstractmethod
    def causal(self) -> bool:
        """Whether Ω_x(x) holds no x' after x."""

    @abc.abstractmethod
    def over(self, u: State, domain: TokenDomain, others: Others) -> State:
        """The rate, integrated over more tokens than those of u.

        **Arguments:**

        - `others`: is called once, with `M(u)`, arrays `[..., tokens, …]`, and the domain of
          u; gives M of all tokens over which the integral runs, and their domain.
        """

    def __call__(self, u: State, domain: TokenDomain) -> State:
        return self.over(u, domain, lambda own, domain: (own, domain))
