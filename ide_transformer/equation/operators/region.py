"""The part of Ω_x over which attention integrates."""

import abc
from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, Bool

from ...errors import InputError
from ..domain import TokenDomain


class AbstractRegion(eqx.Module):
    """A region Ω_x(x) for each token x."""

    # Whether no x' after x lies in Ω_x(x).
    causal: ClassVar[bool] = False

    @abc.abstractmethod
    def indicator(
        self, query_domain: TokenDomain, domain: TokenDomain
    ) -> Bool[Array, "tokens others"] | None:
        """`[x, x']` for x of `query_domain` and x' of `domain`, whether x' lies in Ω_x(x);
        `None` where all of them do."""


class Fredholm(AbstractRegion):
    """All of Ω_x, as in a Fredholm operator: encoders."""

    def indicator(self, query_domain: TokenDomain, domain: TokenDomain) -> None:
        return None


class Volterra(AbstractRegion):
    """The past, `x' ≤ x`, as in a Volterra operator: causal decoders.

    **Arguments:**

    - `window`: how far back it goes, `x - window < x'`; `None` for all of the past.
    """

    window: int | None = eqx.field(static=True, default=None)

    causal: ClassVar[bool] = True

    def __check_init__(self):
        if self.window is not None and self.window < 1:
            raise InputError(f"Volterra(window={self.window}): a window has at least 1 token.")

    def indicator(
        self, query_domain: TokenDomain, domain: TokenDomain
    ) -> Bool[Array, "tokens others"]:
        distance = query_domain.positions[:, None] - domain.positions[None, :]
        past = distance >= 0
        return past if self.window is None else past & (distance < self.window)
