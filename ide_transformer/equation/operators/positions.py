"""Positions of tokens in the scores of attention."""

import math
from typing import ClassVar, TypeAlias

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...arguments import PositiveFloat, PositiveInt
from ...errors import InputError
from ..domain import TokenDomain
from .region import differences


# Queries or keys, head by head, and a term of the scores; `None` for none.
Heads: TypeAlias = Float[Array, "*batch tokens heads features"]
ScoreBias: TypeAlias = Float[Array, "heads tokens others"] | None


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


class NoPositions(AbstractPositions):
    """No positions: attention depends on the state only."""


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
        if turning % 2 or turning > head_features:
            raise InputError(
                f"Rotary positions turn pairs of features, but {turning} of head_features="
                f"{head_features} would turn; choose an even number of them."
            )
        if self.stretch is not None and len(self.stretch) != turning // 2:
            raise InputError(
                f"Rotary: stretch has {len(self.stretch)} numbers for {turning} features; it "
                "needs one for each pair."
            )

    def __call__(self, x: Heads, domain: TokenDomain) -> Heads:
        turning = x.shape[-1] if self.features is None else self.features
        half = turning // 2
        frequency = self.base ** (-jnp.arange(half, dtype=domain.points.dtype) / half)
        if self.stretch is not None:
            frequency = frequency / jnp.asarray(self.stretch, frequency.dtype)
        angle = domain.positions[:, None, None] * frequency[None, None, :]
        angle = jnp.broadcast_to(angle, (*x.shape[:-3], x.shape[-3], 1, half))
        cos, sin = jnp.cos(angle).astype(x.dtype), jnp.sin(angle).astype(x.dtype)
        first, second, rest = jnp.split(x, [half, turning], axis=-1)
        return jnp.concatenate(
            [first * cos - second * sin, second * cos + first * sin, rest], axis=-1
        )


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
                f"{self.max_distance}; there are at least 4, and fewer than 4 max_distance."
            )

    def check(self, heads: int, head_features: int) -> None:
        if self.table.shape[1] != heads:
            raise InputError(
                f"RelativeBias: table of {self.table.shape[1]} heads, but the attention has "
                f"heads={heads}; give table the shape [buckets, {heads}]."
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
            raise InputError(
                f"LinearBias(heads={self.heads}), but the attention has heads={heads}; write "
                f"LinearBias({heads})."
            )

    def score_bias(self, query_domain: TokenDomain, domain: TokenDomain) -> ScoreBias:
        square = jnp.sum(differences(query_domain, domain) ** 2, axis=-1)
        # The gradient at the distance zero is zero, and not NaN.
        distance = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
        power = 1 << self.heads.bit_length() - 1
        further = jnp.arange(self.heads - power) + 0.5
        place = jnp.concatenate([jnp.arange(1, power + 1), further])
        slopes = self.scale * 2 ** (-8 * place / power)
        return -slopes[:, None, None].astype(distance.dtype) * distance[None]
