"""The token integral of attention, by the quadrature of the domain."""

import math
from collections.abc import Callable
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

from ...devices import token_devices
from ...domain import TokenDomain
from ..positions import Heads, ScoreBias
from ..region import AbstractRegion
from .blocks import Blocks, Span
from .ring import Ring, divides
from .stream import Stream
from .token_mean import AbstractQuadrature, Domains, Integrand, log_weighting, token_mean


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
    """`∫ γ(x, x') V(x') dx'` by the quadrature of the domain of x', each head by itself.

    **Arguments:**

    - `domains`: that of the queries, and that of the keys and values, over which the integral
      runs: the same one, a larger one, or another.
    - `region`: the part of the latter that each query sees.
    - `bias`: added to the scores `s_h(x, x')`.
    """
    domain = domains.points
    # On a circle, the first tokens are near the last ones.
    in_order = domains.queries is domain and domain.consecutive and domain.period is None
    plain = bias is None and value.shape[-1] == key.shape[-1] and token_devices() == 1
    if plain and _fused_serves(query, region, in_order=in_order):
        return fused_mean(query, key, value, domain, region)
    integrand, restore = prepare(query, key, value, domain, bias)
    places = Domains(*(TokenDomain(x.points, period=x.period) for x in domains))
    quadrature = _quadrature(integrand, region, in_order)
    return restore(token_mean(integrand, places, quadrature).mean)


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
    integrand = Integrand(
        jnp.moveaxis(query, -4, -2),
        jnp.moveaxis(key, -3, -2),
        jnp.moveaxis(value, -3, -2),
        _as_scores(domain.log_weights, query.dtype),
        bias,
        _as_scores(domain.log_end_weights, query.dtype),
        domain.ends,
    )
    return integrand, lambda mean: jnp.moveaxis(mean, -2, -4).reshape(*batch, tokens, heads, -1)


def _as_scores(log_weights: Array | None, dtype: DTypeLike) -> Array | None:
    """In the dtype of the scores."""
    if log_weights is None:
        return None
    return log_weights.astype(jnp.promote_types(dtype, jnp.float32))


def _quadrature(
    integrand: Integrand, region: AbstractRegion, in_order: bool
) -> AbstractQuadrature:
    """All at once where there are few tokens, then queries in blocks, then both in blocks; part
    by part where they are divided among devices."""
    tokens, others = integrand.query.shape[-2], integrand.key.shape[-2]
    if divides(integrand):
        sizes = (n // token_devices() for n in (tokens, others))
        return Ring(region, _of_part(region, *sizes, biased=integrand.bias is not None))
    if tokens * others > _STREAM_FROM**2 and integrand.bias is None:
        return Stream(region, _STREAM_BLOCK, in_order)
    size = max(_BLOCK, -(-tokens // _MOST_BLOCKS))
    starts = range(0, tokens, size)
    spans = tuple(
        Span(start, min(start + size, tokens), *_seen(region, start, size, others, in_order))
        for start in starts
    )
    return Blocks(region, spans)


def _of_part(
    region: AbstractRegion, tokens: int, others: int, *, biased: bool
) -> AbstractQuadrature:
    """The integral of the queries of a device over the points that visit it."""
    if tokens * others > _STREAM_BLOCK**2 and not biased:
        return Stream(region, _STREAM_BLOCK, in_order=False)
    return Blocks(region, (Span(0, tokens, 0, others),))


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
    low = query.dtype == jnp.bfloat16
    known = region.band() is not None
    width = query.shape[-1]
    fits = width <= 128 and width % 8 == 0 and query.shape[-3] > 1
    return jax.default_backend() == "gpu" and low and known and fits and in_order


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
    its mathematics are tested with `xla`.

    **Arguments:**

    - `implementation`: of `jax.nn.dot_product_attention`.
    """
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
