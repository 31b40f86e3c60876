"""Regions over which attention integrates, and positions of tokens."""

import abc
import math
from typing import ClassVar, TypeAlias

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ...arguments import PositiveFloat, PositiveInt, checked
from ...errors import InputError
from ..arrays import root
from ..domain import TokenDomain


# Whether a token sees another one.
Indicator: TypeAlias = Bool[Array, "tokens others"] | None
# The `ends` of a domain, and whether the integral of a token ends there.
Ends: TypeAlias = Float[Array, "ends others"] | None
EndIndicator: TypeAlias = Bool[Array, "ends tokens others"] | None
# Queries or keys of each head, and a term of the scores.
Heads: TypeAlias = Float[Array, "*batch tokens heads features"]
ScoreBias: TypeAlias = Float[Array, "heads tokens others"] | None


def differences(
    query_domain: TokenDomain, domain: TokenDomain
) -> Float[Array, "tokens others dimension"]:
    """`x - x'` for x in `query_domain` and x' in `domain`; around a period, the shorter way."""
    difference = query_domain.points[:, None, :] - domain.points[None, :, :]
    if domain.period is None:
        return difference
    lengths = [(length or 0.0, length or jnp.inf) for length in domain.period]
    period, divisor = jnp.asarray(lengths, difference.dtype).T[:, None, None]
    return difference - period * jnp.round(difference / divisor)


class AbstractRegion(eqx.Module):
    """The region Ω_x(x) over which the integral of token x runs."""

    # Whether Ω_x(x) holds no x' after x.
    causal: ClassVar[bool] = False

    @abc.abstractmethod
    def indicator(self, query_domain: TokenDomain, domain: TokenDomain) -> Indicator:
        """Whether x' of `domain` is in Ω_x(x) for x of `query_domain`; `None` if always."""

    @property
    @abc.abstractmethod
    def reach(self) -> int | None:
        """The number of earlier tokens that a token sees, for tokens at 0, 1, 2, …; `None` for
        all. It sees all later tokens, or none if `causal`."""

    def ends(self, query_domain: TokenDomain, ends: Ends) -> EndIndicator:
        """`[end, x, x']`: whether Ω_x(x) ends at `ends[end, x']`, so that x' has its end weight
        there; `None` without ends."""
        if not self.causal or ends is None:
            return None
        return query_domain.positions[None, :, None] == ends[:, None, :]


@checked
class Fredholm(AbstractRegion):
    """All of Ω_x, as in a Fredholm operator: encoders."""

    reach: ClassVar[int | None] = None

    def indicator(self, query_domain: TokenDomain, domain: TokenDomain) -> None:
        return None


@checked
class Volterra(AbstractRegion):
    """The past, `x' ≤ x`, as in a Volterra operator: causal decoders.

    **Arguments:** `window`, which restricts it to `x - window < x'`; `None` for all of it.
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
                f"Volterra: window={self.window} may begin between the points of a domain with "
                "ends; set window=None."
            )
        return super().ends(query_domain, ends)


class AbstractPositions(eqx.Module):
    """Positions of tokens: changes queries and keys, or adds a bias to the scores."""

    # Whether it turns pairs of features. Then features are not values of a function.
    turns_features: ClassVar[bool] = False

    def check(self, heads: int, head_features: int) -> None:
        """Raises `InputError` if the heads or their width do not fit."""

    def __call__(self, x: Heads, domain: TokenDomain) -> Heads:
        """Adds positions to queries or keys."""
        return x

    def score_bias(self, query_domain: TokenDomain, domain: TokenDomain) -> ScoreBias:
        """The bias of the scores `s_h(x, x')` for x in `query_domain` and x' in `domain`."""
        return None


@checked
class NoPositions(AbstractPositions):
    """No positions: attention depends on the state only."""


@checked
class Rotary(AbstractPositions):
    """Rotary positions (Su et al., arXiv 2104.09864): features `i` and `i + d/2` of a head turn
    by the angle `x ω_i`, `ω_i = base^(-2i/d)`, so scores depend on `x - x'`.

    **Arguments:**

    - `base`: about the ratio of the longest to the shortest wavelength.
    - `features`: d, how many features of a head turn (the first d); `None` for all.
    - `stretch`: `d/2` numbers that divide ω, for texts longer than in training; `None` for 1.
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
                f"Rotary: features={turning} must be even and at most {head_features=}, and "
                f"stretch={self.stretch} must have half as many numbers."
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


def _check_heads(positions: AbstractPositions, biases: int, heads: int) -> None:
    if biases != heads:
        raise InputError(
            f"{type(positions).__name__}: got biases for {biases} heads, expected {heads=}."
        )


@checked
class RelativeBias(AbstractPositions):
    """A learned bias of the scores by distance, `s_h(x, x') + b_h(bucket(x' - x))`, with exact
    buckets nearby and logarithmic buckets far away (T5: Raffel et al., arXiv 1910.10683).

    **Arguments:**

    - `table`: b, `[buckets, heads]`: half the buckets for earlier tokens, half for later.
    - `max_distance`: this and all longer distances share a bucket.
    """

    table: Float[Array, "buckets heads"]
    max_distance: PositiveInt = eqx.field(static=True, default=128)

    def __check_init__(self):
        if not 4 <= self.table.shape[0] < 4 * self.max_distance:
            raise InputError(
                f"RelativeBias: table has {self.table.shape[0]} buckets; it must have at least "
                f"4, and fewer than 4 max_distance = {4 * self.max_distance}."
            )

    def check(self, heads: int, head_features: int) -> None:
        _check_heads(self, self.table.shape[1], heads)

    def score_bias(self, query_domain: TokenDomain, domain: TokenDomain) -> ScoreBias:
        half = self.table.shape[0] // 2
        exact = half // 2
        offset = domain.positions[None, :] - query_domain.positions[:, None]
        distance = jnp.abs(offset)
        # In the precision of the checkpoints: a bucket ends where its logarithm rounds up.
        ratio = jnp.maximum(distance, 1).astype(jnp.float32) / exact
        far = exact + jnp.log(ratio) / math.log(self.max_distance / exact) * (half - exact)
        far = jnp.minimum(jnp.floor(far), half - 1).astype(int)
        bucket = jnp.where(distance < exact, distance.astype(int), far)
        bucket = bucket + jnp.where(offset > 0, half, 0)
        return jnp.moveaxis(self.table[bucket], -1, 0)


@checked
class LinearBias(AbstractPositions):
    """Scores that fall with the distance, `s_h(x, x') - m_h |x - x'|` (ALiBi: Press et al.,
    arXiv 2108.12409). The slopes are `2^{-8h/p}`: h = 1, …, p, and then 1/2, 3/2, … for further
    heads, with p the largest power of two up to the number of heads. Works in any dimension;
    around a period `|x - x'|` is the shorter way.

    **Arguments:**

    - `heads`: the number of heads of the attention.
    - `scale`: a factor of all slopes; use about 100 for 100 tokens on `[0, 1]`.
    """

    heads: PositiveInt = eqx.field(static=True)
    scale: PositiveFloat = eqx.field(static=True, default=1.0)

    def check(self, heads: int, head_features: int) -> None:
        _check_heads(self, self.heads, heads)

    def score_bias(self, query_domain: TokenDomain, domain: TokenDomain) -> ScoreBias:
        square = jnp.sum(differences(query_domain, domain) ** 2, axis=-1)
        distance = root(square)
        power = 1 << self.heads.bit_length() - 1
        further = jnp.arange(self.heads - power) + 0.5
        place = jnp.concatenate([jnp.arange(1, power + 1), further])
        slopes = self.scale * 2 ** (-8 * place / power)
        return -slopes[:, None, None].astype(distance.dtype) * distance[None]
