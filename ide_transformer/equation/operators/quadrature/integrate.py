"""Computes the token integral of attention by the quadrature of the domain."""

import math
from collections.abc import Callable
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...devices import token_devices
from ...domain import TokenDomain
from ..positions import AbstractRegion, Heads, ScoreBias
from .blocks import Blocks, Span, Stream
from .ring import Ring
from .token_mean import Integrand, log_weighting, token_mean


# The least size and largest number of blocks of queries; the number of tokens above which
# queries and points are streamed, and the size of their blocks. Fastest on two cores.
_BLOCK = 64
_MOST_BLOCKS = 8
_STREAM_FROM = 2048
_STREAM_BLOCK = 512

# Keys, or values, which may have another width.
Shared: TypeAlias = Float[Array, "*batch others shared _"]


def integrate(
    query: Heads,
    key: Shared,
    value: Shared,
    query_domain: TokenDomain,
    domain: TokenDomain,
    region: AbstractRegion,
    bias: ScoreBias = None,
) -> Float[Array, "*batch tokens heads value_features"]:
    """`∫ γ(x, x') V(x') dx'` over the region of each x, for each head: queries in blocks, many
    tokens also points in blocks, several devices in a ring."""
    in_order = query_domain is domain and domain.consecutive
    plain = in_order and bias is None and value.shape[-1] == key.shape[-1]
    fits = query.shape[-1] <= 128 and query.shape[-1] % 8 == 0 and query.shape[-3] > 1
    # The flash attention of cuDNN takes low precision only.
    low = jax.default_backend() == "gpu" and query.dtype == jnp.bfloat16
    if plain and fits and low and token_devices() == 1:
        return fused_mean(query, key, value, domain, region)
    integrand, restore = prepare(query, key, value, query_domain, domain, bias)
    tokens = integrand.query.shape[-2]
    others = integrand.key.shape[-2]
    devices = token_devices()
    if devices > 1 and tokens % devices == others % devices == 0:
        own = tokens // devices
        visiting = others // devices
        if own * visiting > _STREAM_BLOCK**2 and bias is None:
            part = Stream(region, _STREAM_BLOCK, in_order=False)
        else:
            part = Blocks(region, (Span(0, own, 0, visiting),))
        quadrature = Ring(region, part)
    elif tokens * others > _STREAM_FROM**2 and bias is None:
        quadrature = Stream(region, _STREAM_BLOCK, in_order)
    else:
        size = max(_BLOCK, -(-tokens // _MOST_BLOCKS))
        before = region.reach if in_order else None
        spans = []
        for start in range(0, tokens, size):
            stop = min(start + size, tokens)
            first = 0 if before is None else max(start - before, 0)
            last = stop if in_order and region.causal else others
            spans.append(Span(start, stop, first, last))
        quadrature = Blocks(region, tuple(spans))
    return restore(token_mean(integrand, quadrature).mean)


def prepare(
    query: Heads,
    key: Shared,
    value: Shared,
    query_domain: TokenDomain,
    domain: TokenDomain,
    bias: ScoreBias,
) -> tuple[Integrand, Callable[[Array], Array]]:
    """The integrand, with heads before tokens, and the map that moves them back."""
    *batch, tokens, heads, features = query.shape
    others, shared = key.shape[-3:-1]
    query = query / jnp.asarray(math.sqrt(features), query.dtype)
    query = query.reshape(*batch, tokens, shared, heads // shared, features)
    if bias is not None:
        bias = bias.reshape(shared, heads // shared, tokens, others)
    dtype = jnp.promote_types(query.dtype, jnp.float32)
    weights, end_weights = jax.tree.map(
        lambda x: x.astype(dtype), (domain.log_weights, domain.log_end_weights)
    )
    integrand = Integrand(
        jnp.moveaxis(query, -4, -2),
        jnp.moveaxis(key, -3, -2),
        jnp.moveaxis(value, -3, -2),
        log_weights=weights,
        bias=bias,
        log_end_weights=end_weights,
        ends=domain.ends,
        query_domain=TokenDomain(query_domain.points, period=query_domain.period),
        domain=TokenDomain(domain.points, period=domain.period),
    )
    return integrand, lambda mean: jnp.moveaxis(mean, -2, -4).reshape(*batch, tokens, heads, -1)


def fused_mean(
    query: Heads,
    key: Shared,
    value: Shared,
    domain: TokenDomain,
    region: AbstractRegion,
    *,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> Heads:
    """`integrate` on consecutive tokens by JAX's fused attention, for reverse mode only."""
    *batch, tokens, _, _ = query.shape
    integrand, _ = prepare(query, key, value, domain, domain, None)
    bias = log_weighting(integrand, region.ends(domain, integrand.ends))
    if bias is not None:
        bias = jnp.broadcast_to(bias, (*batch, tokens, tokens)).astype(query.dtype)
        bias = bias.reshape(-1, 1, tokens, tokens)
    mean = jax.nn.dot_product_attention(
        *(x.reshape(-1, *x.shape[-3:]) for x in (query, key, value)),
        bias=bias,
        is_causal=region.causal,
        local_window_size=None if region.reach is None else (region.reach, 0),
        implementation=implementation,
    )
    return mean.reshape(query.shape).astype(jnp.promote_types(query.dtype, jnp.float32))
