"""The token integral of attention, by the quadrature of the domain."""

import math
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

from ...domain import TokenDomain
from ..region import AbstractRegion
from .blocks import Blocks, Span
from .fused import fused_mean, is_served
from .stream import Stream
from .token_mean import AbstractQuadrature, Domains, Integrand, token_mean


# The least queries of a block, and the most blocks; the number of tokens from which on both
# queries and points are streamed, and the size of their blocks. Fastest on two cores.
_BLOCK = 64
_MOST_BLOCKS = 8
_STREAM_FROM = 2048
_STREAM_BLOCK = 512


def integrate(
    query: Float[Array, "*batch tokens heads features"],
    key: Float[Array, "*batch others shared features"],
    value: Float[Array, "*batch others shared features"],
    domains: Domains,
    region: AbstractRegion,
    bias: Float[Array, "heads tokens others"] | None = None,
) -> Float[Array, "*batch tokens heads features"]:
    """`∫ γ(x, x') V(x') dx'` by the quadrature of the domain of x', each head by itself.

    **Arguments:**

    - `domains`: that of the queries, and that of the keys and values, over which the integral
      runs: the same one, a larger one, or another.
    - `region`: the part of the latter that each query sees.
    - `bias`: added to the scores `s_h(x, x')`.
    """
    domain = domains.points
    in_order = domains.queries is domain and domain.consecutive
    if is_served(query, region, in_order=in_order, biased=bias is not None):
        return fused_mean(query, key, value, domain, region)
    integrand, restore = prepare(query, key, value, domain, bias)
    places = Domains(*(TokenDomain(x.points) for x in domains))
    quadrature = _quadrature(integrand, region, in_order)
    return restore(token_mean(integrand, places, quadrature).mean)


def prepare(
    query: Float[Array, "*batch tokens heads features"],
    key: Float[Array, "*batch others shared features"],
    value: Float[Array, "*batch others shared features"],
    domain: TokenDomain,
    bias: Float[Array, "heads tokens others"] | None,
) -> tuple[Integrand, Callable[[Array], Array]]:
    """The integrand, heads before tokens, and the map of its mean back to tokens before
    heads."""
    *batch, tokens, heads, features = query.shape
    shared, others = key.shape[-2], key.shape[-3]
    query = query / jnp.asarray(math.sqrt(features), query.dtype)
    query = query.reshape(*batch, tokens, shared, heads // shared, features)
    if bias is not None:
        bias = bias.reshape(shared, heads // shared, tokens, others)
    integrand = Integrand(
        jnp.moveaxis(query, -4, -2),
        jnp.moveaxis(key, -3, -2),
        jnp.moveaxis(value, -3, -2),
        _log_weights(domain, jnp.promote_types(query.dtype, jnp.float32)),
        bias,
    )
    return integrand, lambda mean: jnp.moveaxis(mean, -2, -4).reshape(*batch, tokens, heads, -1)


def _log_weights(domain: TokenDomain, dtype: DTypeLike) -> Float[Array, "*batch others"] | None:
    """`log w_j` in the dtype of the scores; that of padding stays finite."""
    if domain.log_weights is None:
        return None
    return jnp.maximum(domain.log_weights, float(jnp.finfo(dtype).min) / 4).astype(dtype)


def _quadrature(
    integrand: Integrand, region: AbstractRegion, in_order: bool
) -> AbstractQuadrature:
    """All at once where there are few tokens, then queries in blocks, then both in blocks."""
    tokens, others = integrand.query.shape[-2], integrand.key.shape[-2]
    if tokens * others > _STREAM_FROM**2 and integrand.bias is None:
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
