"""The part of Ω_x over which attention integrates."""

import abc
import math
from typing import ClassVar, NamedTuple, TypeAlias

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from ...arguments import PositiveFloat, PositiveInt
from ...errors import InputError
from ..domain import TokenDomain


# Places in the order of tokens, from one on to before another.
Range: TypeAlias = tuple[int | Int[Array, ""], int | Int[Array, ""]]
# For each pair of tokens, whether the first sees the second.
Indicator: TypeAlias = Bool[Array, "tokens others"] | None
# The ends of integrals at which points have weights of their own, and whether they are that
# of the integral of a token.
Ends: TypeAlias = Float[Array, "ends others"] | None
EndIndicator: TypeAlias = Bool[Array, "ends tokens others"] | None


class Band(NamedTuple):
    """The tokens that a fused kernel lets a query see: all or the past, within a window."""

    causal: bool
    window: int | None


def differences(
    query_domain: TokenDomain, domain: TokenDomain
) -> Float[Array, "tokens others dimension"]:
    """`x - x'` for x of `query_domain` and x' of `domain`; around a periodic domain the shorter
    way along each axis."""
    apart = query_domain.points[:, None, :] - domain.points[None, :, :]
    if domain.period is None:
        return apart
    # An axis with boundaries makes no turns.
    period, divisor = (
        jnp.asarray([length or other for length in domain.period], apart.dtype)[None, None]
        for other in (0.0, jnp.inf)
    )
    return apart - period * jnp.round(apart / divisor)


class AbstractRegion(eqx.Module):
    """A region Ω_x(x) for each token x."""

    # Whether Ω_x(x) holds no x' after x.
    causal: ClassVar[bool] = False

    @abc.abstractmethod
    def indicator(self, query_domain: TokenDomain, domain: TokenDomain) -> Indicator:
        """`[x, x']` for x of `query_domain` and x' of `domain`: whether x' is in Ω_x(x);
        `None` where all of them are."""

    @abc.abstractmethod
    def meets(self, queries: Range, points: Range) -> Bool[ArrayLike, ""]:
        """For consecutive tokens 0, 1, 2, …: whether any of the queries `[start, stop)` sees
        any of the points `[start, stop)`."""

    def ends(self, query_domain: TokenDomain, ends: Ends) -> EndIndicator:
        """`[end, x, x']`: whether Ω_x(x) ends at `ends[end, x']`, so that the end weight of x'
        counts; `None` where it is the whole domain, or has no ends."""
        if not self.causal or ends is None:
            return None
        return query_domain.positions[None, :, None] == ends[:, None, :]

    def band(self) -> Band | None:
        """For consecutive tokens: the region in words of fused kernels, if they have any."""
        return None


class Fredholm(AbstractRegion):
    """Ω_x as a whole, as in a Fredholm operator: encoders."""

    def indicator(self, query_domain: TokenDomain, domain: TokenDomain) -> None:
        return None

    def meets(self, queries: Range, points: Range) -> Bool[ArrayLike, ""]:
        return True

    def band(self) -> Band:
        return Band(causal=False, window=None)


class Neighborhood(AbstractRegion):
    """The points nearer than a radius, `‖x - x'‖ < radius`, in distances of the domain, in any
    dimension; around a periodic domain by the shorter way."""

    radius: PositiveInt | PositiveFloat = eqx.field(static=True)

    def indicator(self, query_domain: TokenDomain, domain: TokenDomain) -> Indicator:
        return jnp.sum(differences(query_domain, domain) ** 2, axis=-1) < self.radius**2

    def meets(self, queries: Range, points: Range) -> Bool[ArrayLike, ""]:
        begins_before = points[0] < queries[1] - 1 + self.radius
        return begins_before & (points[1] > queries[0] - self.radius + 1)

    def band(self) -> Band:
        return Band(causal=False, window=math.ceil(self.radius))


class Volterra(AbstractRegion):
    """The past, `x' ≤ x`, as in a Volterra operator: causal decoders.

    **Arguments:**

    - `window`: how far back it goes, `x - window < x'`; `None` for all of the past.
    """

    window: PositiveInt | PositiveFloat | None = eqx.field(static=True, default=None)

    causal: ClassVar[bool] = True

    def indicator(self, query_domain: TokenDomain, domain: TokenDomain) -> Indicator:
        distance = query_domain.positions[:, None] - domain.positions[None, :]
        past = distance >= 0
        return past if self.window is None else past & (distance < self.window)

    def meets(self, queries: Range, points: Range) -> Bool[ArrayLike, ""]:
        past = points[0] < queries[1]
        window = self.window
        return past if window is None else past & (points[1] > queries[0] - window + 1)

    def ends(self, query_domain: TokenDomain, ends: Ends) -> EndIndicator:
        if self.window is not None and ends is not None:
            raise InputError(
                f"A window of {self.window} begins between the points of its domain, for "
                "which end_weights say nothing; take window=None, or a TokenDomain without "
                "end_weights, in which each token counts in full."
            )
        return super().ends(query_domain, ends)

    def band(self) -> Band:
        window = None if self.window is None else math.ceil(self.window)
        return Band(causal=True, window=window)
