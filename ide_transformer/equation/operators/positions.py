"""The part of Ω_x over which attention integrates, and the positions of tokens in it."""

import abc
import math
from typing import ClassVar, TypeAlias

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from ...arguments import PositiveFloat, PositiveInt, checked
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
# Queries or keys, head by head, and a term of the scores; `None` for none.
Heads: TypeAlias = Float[Array, "*batch tokens heads features"]
ScoreBias: TypeAlias = Float[Array, "heads tokens others"] | None


def differences(
    query_domain: TokenDomain, domain: TokenDomain
) -> Float[Array, "tokens others dimension"]:
    """`x - x'`, x of `query_domain` and x' of `domain`; around a period the shorter way."""
    apart = query_domain.points[:, None, :] - domain.points[None, :, :]
    if domain.period is None:
        return apart
    # An axis with boundaries makes no turns.
    period = [length or 0.0 for length in domain.period]
    divisor = [length or jnp.inf for length in domain.period]
    period = jnp.asarray(period, apart.dtype)[None, None]
    divisor = jnp.asarray(divisor, apart.dtype)[None, None]
    return apart - period * jnp.round(apart / divisor)


class AbstractRegion(eqx.Module):
    """A region Ω_x(x) for each token x."""

    # Whether Ω_x(x) holds no x' after x.
    causal: ClassVar[bool] = False

    @abc.abstractmethod
    def indicator(self, query_domain: TokenDomain, domain: TokenDomain) -> Indicator:
        """`[x, x']` for x of `query_domain` and x' of `domain`: whether x' is in Ω_x(x);
        `None` where all of them are."""

    @property
    @abc.abstractmethod
    def reach(self) -> int | None:
        """How many of the consecutive tokens 0, 1, 2, … before its own a token sees; `None`
        for all. Of those after its own it sees all, or none where the region is `causal`."""

    def meets(self, queries: Range, points: Range) -> Bool[ArrayLike, ""]:
        """For consecutive tokens: whether any of the queries `[start, stop)` sees any of the
        points `[start, stop)`."""
        meets = points[0] < queries[1] if self.causal else True
        return meets if self.reach is None else meets & (points[1] > queries[0] - self.reach)

    def ends(self, query_domain: TokenDomain, ends: Ends) -> EndIndicator:
        """`[end, x, x']`: whether Ω_x(x) ends at `ends[end, x']`, so that the end weight of x'
        counts; `None` where it is the whole domain, or has no ends."""
        if not self.causal or ends is None:
            return None
        return query_domain.positions[None, :, None] == ends[:, None, :]


@checked
class Fredholm(AbstractRegion):
    """Ω_x as a whole, as in a Fredholm operator: encoders."""

    reach: ClassVar[int | None] = None

    def indicator(self, query_domain: TokenDomain, domain: TokenDomain) -> None:
        return None


@checked
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

    @property
    def reach(self) -> int | None:
        return None if self.window is None else math.ceil(self.window) - 1

    def ends(self, query_domain: TokenDomain, ends: Ends) -> EndIndicator:
        if self.window is not None and ends is not None:
            raise InputError(
                f"A window of {self.window} begins between the points, for which end_weights "
                "say nothing; take window=None, or a TokenDomain without them."
            )
        return super().ends(query_domain, ends)


class AbstractPositions(eqx.Module):
    """Positions of tokens, which enter the scores by a map of queries and keys or by a bias."""

    # Whether it turns pairs of features, so that they are no points of a function.
    turns_features: ClassVar[bool] = False

    def check(self, heads: int, head_features: int) -> None:
        """Refuses a number of heads, or a width of a head, that does not fit."""

    def __call__(self, x: Heads, domain: TokenDomain) -> Heads:
        """Queries or keys with their positions in them."""
        return x

    def score_bias(self, query_domain: TokenDomain, domain: TokenDomain) -> ScoreBias:
        """The bias of the scores `s_h(x, x')`, x of `query_domain` and x' of `domain`."""
        return None


@checked
class NoPositions(AbstractPositions):
    """No positions: attention depends on the state only."""


@checked
class Rotary(AbstractPositions):
    """Rotary positions (Su et al., arXiv 2104.09864): features `i` and `i + d/2` of a
    head turn by the angle `x ω_i`, `ω_i = base^(-2i/d)`, so scores depend on differences
    `x - x'`.

    **Arguments:**

    - `base`: the ratio of the longest to the shortest wavelength, in the limit.
    - `features`: d, the first features of a head, which turn; `None` for all of them.
    - `stretch`: `d/2` numbers that divide ω, for texts longer than those of training; `None`
      for ones.
    """

    turns_features: ClassVar[bool] = True

    base: PositiveFloat = eqx.field(static=True, default=10000.0)
    features: PositiveInt | None = eqx.field(static=True, default=None)
    stretch: tuple[PositiveFloat, ...] | None = eqx.field(static=True, default=None)

    def check(self, heads: int, head_features: int) -> None:
        turning = head_features if self.features is None else self.features
        pairs = turning // 2 if self.stretch is None else len(self.stretch)
        if 2 * pairs != turning or turning > head_features:
            raise InputError(
                f"Rotary: features={turning} of head_features={head_features} turn in pairs; "
                f"choose an even number, and half as many in stretch={self.stretch}."
            )

    def __call__(self, x: Heads, domain: TokenDomain) -> Heads:
        turning = x.shape[-1] if self.features is None else self.features
        half = turning // 2
        frequency = self.base ** (-jnp.arange(half, dtype=domain.points.dtype) / half)
        if self.stretch is not None:
            frequency = frequency / jnp.asarray(self.stretch, frequency.dtype)
        angle = domain.positions[:, None, None] * frequency[None, None, :]
        angle = jnp.broadcast_to(angle, (*x.shape[:-3], x.shape[-3], 1, half))
        cos = jnp.cos(angle).astype(x.dtype)
        sin = jnp.sin(angle).astype(x.dtype)
        first, second, rest = jnp.split(x, [half, turning], axis=-1)
        return jnp.concatenate(
            [first * cos - second * sin, second * cos + first * sin, rest], axis=-1
        )


@checked
class RelativeBias(AbstractPositions):
    """A learned bias of the scores by distance, `s_h(x, x') + b_h(bucket(x' - x))`, the
    buckets exact near by and logarithmic far away (T5: Raffel et al., arXiv 1910.10683).

    **Arguments:**

    - `table`: b, `[buckets, heads]`: half of the buckets for tokens before x, half for those
      after it.
    - `max_distance`: distances from here on share a bucket.
    """

    table: Float[Array, "buckets heads"]
    max_distance: PositiveInt = eqx.field(static=True, default=128)

    def __check_init__(self):
        if not 4 <= self.table.shape[0] < 4 * self.max_distance:
            raise InputError(
                f"RelativeBias: table of {self.table.shape[0]} buckets for max_distance="
                f"{self.max_distance}; give at least 4, and fewer than 4 max_distance."
            )

    def check(self, heads: int, head_features: int) -> None:
        if self.table.shape[1] != heads:
            raise InputError(
                f"RelativeBias: table of {self.table.shape[1]} heads, but heads={heads}."
            )

    def score_bias(self, query_domain: TokenDomain, domain: TokenDomain) -> ScoreBias:
        half = self.table.shape[0] // 2
        exact = half // 2
        offset = domain.positions[None, :] - query_domain.positions[:, None]
        distance = jnp.abs(offset)
        # In the precision in which checkpoints were trained: a bucket ends where its
        # logarithm rounds up.
        ratio = jnp.maximum(distance, 1).astype(jnp.float32) / exact
        far = exact + jnp.log(ratio) / math.log(self.max_distance / exact) * (half - exact)
        far = jnp.minimum(jnp.floor(far), half - 1).astype(int)
        bucket = jnp.where(distance < exact, distance.astype(int), far)
        bucket = bucket + jnp.where(offset > 0, half, 0)
        return jnp.moveaxis(self.table[bucket], -1, 0)


@checked
class LinearBias(AbstractPositions):
    """Scores that fall with the distance, `s_h(x, x') - m_h |x - x'|` (ALiBi: Press et al.,
    arXiv 2108.12409), where the slopes are `2^{-8h/p}`, h = 1, …, p, with p the largest power
    of two up to the number of heads, and for further heads h = 1/2, 3/2, …. A function of the
    coordinates, in any dimension, so that it says the same on every grid; around a periodic
    domain `|x - x'|` is the shorter way.

    **Arguments:**

    - `heads`: that of the attention.
    - `scale`: a factor of all slopes; on `[0, 1]` the distances of 100 tokens need about 100.
    """

    heads: PositiveInt = eqx.field(static=True)
    scale: PositiveFloat = eqx.field(static=True, default=1.0)

    def check(self, heads: int, head_features: int) -> None:
        if self.heads != heads:
            raise InputError(f"LinearBias({self.heads}) for an attention of heads={heads}.")

    def score_bias(self, query_domain: TokenDomain, domain: TokenDomain) -> ScoreBias:
        square = jnp.sum(differences(query_domain, domain) ** 2, axis=-1)
        # The gradient at the distance zero is zero, and not NaN.
        distance = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
        power = 1 << self.heads.bit_length() - 1
        further = jnp.arange(self.heads - power) + 0.5
        place = jnp.concatenate([jnp.arange(1, power + 1), further])
        slopes = self.scale * 2 ** (-8 * place / power)
        return -slopes[:, None, None].astype(distance.dtype) * distance[None]
