"""The token integral of attention, by the quadrature of the domain."""

import functools as ft
import math
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ...devices import token_devices
from ...domain import TokenDomain
from ..positions import Heads, ScoreBias
from ..region import AbstractRegion
from .ring import Ring, divides
from .stream import Stream
from .token_mean import (
    POINTS,
    QUERIES,
    AbstractQuadrature,
    Domains,
    Integrand,
    Mean,
    log_weighting,
    places,
    tangent_part,
    token_mean,
    weighted,
)


class Span(NamedTuple):
    """The queries `[start, stop)` and the points `[first, last)` that they may see."""

    start: int
    stop: int
    first: int
    last: int


class Blocks(AbstractQuadrature):
    """Queries in blocks, one after the other, each with all the points that it may see at
    once. With one block it is the dense form."""

    spans: tuple[Span, ...] = eqx.field(static=True)

    def mean(self, integrand: Integrand, domains: Domains) -> Mean:
        parts = []
        for span in self.spans:
            here = _part(integrand, span)
            s = self.scores(here, _domains(domains, span))
            maximum = jnp.max(s, axis=-1)
            gamma = jnp.exp(s - maximum[..., None])
            normaliser = jnp.sum(gamma, axis=-1)
            mean = weighted(gamma, here.value) / normaliser[..., None]
            parts.append(Mean(mean, maximum, normaliser))
        return _join(parts)

    def tangent(
        self, integrand: Integrand, rate: Integrand, mean: Mean, domains: Domains
    ) -> Mean:
        parts = []
        for span in self.spans:
            # Nothing of a block is kept.
            @ft.partial(jax.checkpoint, prevent_cse=False)
            def one(here, rate, scale, domains):
                s = self.scores(here, domains)
                return tangent_part(s, here, rate, scale, self.ends(here, domains))

            queries = slice(span.start, span.stop)
            scale = mean.maximum[..., queries], mean.normaliser[..., queries]
            here, there = _part(integrand, span), _part(rate, span)
            parts.append(one(here, there, scale, _domains(domains, span)))
        return _join(parts)


def _part(integrand: Integrand, span: Span) -> Integrand:
    """Some queries with some points."""

    def between(start: int, stop: int) -> Callable[[Array, int], Array]:
        return lambda x, axis: lax.slice_in_dim(x, start, stop, axis=axis)

    queries = integrand.map(QUERIES, between(span.start, span.stop))
    return queries.map(POINTS, between(span.first, span.last))


def _domains(domains: Domains, span: Span) -> Domains:
    return Domains(
        places(domains.queries, lambda x: x[span.start : span.stop]),
        places(domains.points, lambda x: x[span.first : span.last]),
    )


def _join(parts: list[Mean]) -> Mean:
    if len(parts) == 1:
        return parts[0]
    mean, *scale = zip(*parts, strict=True)
    return Mean(jnp.concatenate(mean, -2), *(jnp.concatenate(x, -1) for x in scale))


# The least queries of a block, and the most blocks; the number of tokens from which on both
# queries and points are streamed, and the size of their blocks. Fastest on two cores.
_BLOCK = 64
_MOST_BLOCKS = 8
_STREAM_FROM = 2048
_STREAM_BLOCK = 512

# Keys, and values, which may have another width.
Keys: TypeAlias = Float[Array, "*batch others shared features"]
Means: TypeAlias = Float[Array, "*batch tokens heads value_features"]
Values: TypeAlias = Float[Array, "*batch others shared value_features"]


def integrate(
    query: Heads,
    key: Keys,
    value: Values,
    domains: Domains,
    region: AbstractRegion,
    bias: ScoreBias = None,
) -> Means:
    """`∫ γ(x, x') V(x') dx'` over the region of each x, by the quadrature of the domain of x',
    each head by itself; `bias` is added to the scores `s_h(x, x')`."""
    domain = domains.points
    # On a circle, the first tokens are near the last ones.
    in_order = domains.queries is domain and domain.consecutive and domain.period is None
    plain = bias is None and value.shape[-1] == key.shape[-1] and token_devices() == 1
    if plain and _fused_serves(query, region, in_order=in_order):
        return fused_mean(query, key, value, domain, region)
    integrand, restore = prepare(query, key, value, domain, bias)
    quadrature = _quadrature(integrand, region, in_order)
    return restore(token_mean(integrand, Domains(*map(places, domains)), quadrature).mean)


def prepare(
    query: Heads, key: Keys, value: Values, domain: TokenDomain, bias: ScoreBias
) -> tuple[Integrand, Callable[[Array], Array]]:
    """The integrand, heads before tokens, and the map of its mean back to tokens before
    heads."""
    *batch, tokens, heads, features = query.shape
    shared, others = key.shape[-2], key.shape[-3]
    query = query / jnp.asarray(math.sqrt(features), query.dtype)
    query = query.reshape(*batch, tokens, shared, heads // shared, features)
    if bias is not None:
        bias = bias.reshape(shared, heads // shared, tokens, others)
    # In the dtype of the scores.
    dtype = jnp.promote_types(query.dtype, jnp.float32)
    weights, end_weights = jax.tree.map(
        lambda x: x.astype(dtype), (domain.log_weights, domain.log_end_weights)
    )
    integrand = Integrand(
        jnp.moveaxis(query, -4, -2),
        jnp.moveaxis(key, -3, -2),
        jnp.moveaxis(value, -3, -2),
        *(weights, bias, end_weights, domain.ends),
    )
    return integrand, lambda mean: jnp.moveaxis(mean, -2, -4).reshape(*batch, tokens, heads, -1)


def _quadrature(
    integrand: Integrand, region: AbstractRegion, in_order: bool
) -> AbstractQuadrature:
    """All at once where there are few tokens, then queries in blocks, then both in blocks; part
    by part where they are divided among devices."""
    tokens, others = integrand.query.shape[-2], integrand.key.shape[-2]
    biased = integrand.bias is not None
    if divides(integrand):
        own, visiting = (n // token_devices() for n in (tokens, others))
        if own * visiting > _STREAM_BLOCK**2 and not biased:
            return Ring(region, Stream(region, _STREAM_BLOCK, in_order=False))
        return Ring(region, Blocks(region, (Span(0, own, 0, visiting),)))
    if tokens * others > _STREAM_FROM**2 and not biased:
        return Stream(region, _STREAM_BLOCK, in_order)
    size = max(_BLOCK, -(-tokens // _MOST_BLOCKS))
    starts = range(0, tokens, size)
    spans = tuple(
        Span(start, min(start + size, tokens), *_seen(region, start, size, others, in_order))
        for start in starts
    )
    return Blocks(region, spans)


def _seen(
    region: AbstractRegion, start: int, size: int, others: int, in_order: bool
) -> tuple[int, int]:
    """The first point that the queries from `start` on see, and the one after the last."""
    if not in_order:
        return 0, others
    seen = [z for z in range(others) if region.meets((start, start + size), (z, z + 1))]
    return seen[0], seen[-1] + 1


def _fused_serves(query: Heads, region: AbstractRegion, *, in_order: bool) -> bool:
    """Whether cuDNN's flash attention can compute it: on a GPU, in low precision, for
    consecutive tokens, and a region that it knows."""
    width, known = query.shape[-1], region.band() is not None
    fits = width <= 128 and width % 8 == 0 and query.shape[-3] > 1
    low = jax.default_backend() == "gpu" and query.dtype == jnp.bfloat16
    return low and known and fits and in_order


def fused_mean(
    query: Heads,
    key: Keys,
    value: Values,
    domain: TokenDomain,
    region: AbstractRegion,
    *,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> Heads:
    """`integrate` on consecutive tokens by `jax.nn.dot_product_attention`. It has reverse mode
    only, in which weights that are 0 have the derivative 0. On a GPU it has not been run yet;
    its mathematics are tested with `xla`."""
    batch, tokens = query.shape[:-3], query.shape[-3]

    def flat(x):
        return x.reshape(-1, *x.shape[-3:])

    integrand, _ = prepare(query, key, value, domain, None)
    bias = log_weighting(integrand, region.ends(domain, integrand.ends))
    if bias is not None:
        bias = jnp.broadcast_to(bias, (*batch, tokens, tokens)).astype(query.dtype)
        bias = bias.reshape(-1, 1, tokens, tokens)
    band = region.band()
    assert band is not None, f"{type(region).__name__} has no fused kernel"
    mean = jax.nn.dot_product_attention(
        flat(query),
        flat(key),
        flat(value),
        bias=bias,
        is_causal=band.causal,
        local_window_size=band.window
        and (band.window - 1, 0 if band.causal else band.window - 1),
        implementation=implementation,
    )
    return mean.reshape(query.shape).astype(jnp.promote_types(query.dtype, jnp.float32))
