"""The part of Ω_x over which attention integrates."""

import abc

import equinox as eqx
from jaxtyping import Array, Bool

from ..domain import TokenDomain


class AbstractRegion(eqx.Module):
    """A region Ω_x(x) for each token x."""

    @abc.abstractmethod
    def indicator(self, domain: TokenDomain) -> Bool[Array, "tokens tokens"] | None:
        """`[x, x']`, whether x' lies in Ω_x(x); `None` where all of them do."""


class Fredholm(AbstractRegion):
    """All of Ω_x, as in a Fredholm operator: encoders."""

    def indicator(self, domain: TokenDomain) -> None:
        return None


class Volterra(AbstractRegion):
    """The past, `x' ≤ x`, as in a Volterra operator: causal decoders."""

    def indicator(self, domain: TokenDomain) -> Bool[Array, "tokens tokens"]:
        positions = domain.positions
        return positions[None, :] <= positions[:, None]
