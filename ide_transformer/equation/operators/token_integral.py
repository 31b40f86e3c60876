"""The token integral of attention, by the quadrature of the domain."""

import functools as ft
import math
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from ..devices import SEQUENCE, token_devices
from ..domain import TokenDomain
from .positions import AbstractRegion, EndIndicator, Ends, Heads, ScoreBias


# Queries are divided into spans, each with the points that it may see. A span with too many
# scores is a loop over blocks. These numbers are the fastest on two cores.
_LEAST_SPAN = 64
_MOST_SPANS = 8
_MOST_SCORES = 2**18

# Names of the values that a gradient stores instead of computing them again: the mean, and the
# maximum and the normaliser of the scores.
RESIDUALS = ("token_mean", "token_maximum", "token_normaliser")

# Axes: heads that share a key come before the tokens.
Means: TypeAlias = Float[Array, "*batch shared repeats tokens features"]
Numbers: TypeAlias = Float[Array, "*batch shared repeats tokens 1"]
Keys: TypeAlias = Float[Array, "*batch shared others features"]
Scores: TypeAlias = Float[Array, "*batch shared repeats tokens others"]
Weights: TypeAlias = Float[Array, "... queries others"] | None
# Keys or values, as operators compute them.
Shared: TypeAlias = Float[Array, "*batch others shared _"]


class Span(NamedTuple):
    """Queries `[start, stop)` in blocks of at most `block`; they see points `[first, last)`."""

    start: int
    stop: int
    first: int
    last: int
    block: int


class Queries(NamedTuple):
    """Queries divided by `sqrt(features)`, the bias of their scores, and their points x."""

    query: Means
    bias: Float[Array, "shared repeats tokens others"] | None
    domain: TokenDomain

    def within(self, span: Span) -> "Queries":
        part = jax.tree.map(lambda x: x[..., span.start : span.stop, :], self)
        bias = jax.tree.map(lambda x: x[..., span.first : span.last], part.bias)
        return part._replace(bias=bias)


class Points(NamedTuple):
    """Keys and values at the points x', and quadrature weights. Where the region of a query
    ends, end weights replace them."""

    key: Keys
    value: Keys
    domain: TokenDomain
    weights: Float[Array, "... others"] | None
    end_weights: Float[Array, "... ends others"] | None
    ends: Ends

    def within(self, span: Span) -> "Points":
        rows = jax.tree.map(lambda x: x[..., span.first : span.last, :], self[:3])
        numbers = jax.tree.map(lambda x: x[..., span.first : span.last], self[3:])
        return Points(*rows, *numbers)


class Mean(NamedTuple):
    """The mean of the values under `γ = w exp(s - maximum) / normaliser`, with scores s and
    weights w. A query that sees nothing has the mean 0."""

    mean: Means
    maximum: Numbers
    normaliser: Numbers

    def within(self, span: Span) -> "Mean":
        return Mean(*(x[..., span.start : span.stop, :] for x in self))


def integrate(
    query: Heads,
    key: Shared,
    value: Shared,
    query_domain: TokenDomain,
    domain: TokenDomain,
    region: AbstractRegion,
    bias: ScoreBias = None,
) -> Float[Array, "*batch tokens heads value_features"]:
    """`∫ γ(x, x') V(x') dx'` over the region of each x, for each head. If devices divide the
    tokens, each device integrates for its own queries over all points."""
    in_order = query_domain is domain and domain.consecutive
    devices = token_devices()
    is_plain = in_order and bias is None and value.shape[-1] == key.shape[-1]
    fits = query.shape[-1] <= 128 and query.shape[-1] % 8 == 0 and query.shape[-3] > 1
    # The flash attention of cuDNN takes low precision only.
    is_low = jax.default_backend() == "gpu" and query.dtype == jnp.bfloat16
    if is_plain and fits and is_low and devices == 1:
        return fused_mean(query, key, value, domain, region)
    queries, points, restore = prepare(query, key, value, query_domain, domain, bias)
    if devices == 1 or query.shape[-3] % devices:
        spans = spans_of(queries, points, region, in_order)
        return restore(token_mean(queries, points, region, spans).mean)

    def local_mean(queries: Queries, points: Points) -> Means:
        spans = spans_of(queries, points, region, in_order=False)
        return token_mean(queries, points, region, spans).mean

    by_tokens = jax.tree.map(lambda x: PartitionSpec(*[None] * (x.ndim - 2), SEQUENCE), queries)
    on_devices = jax.shard_map(
        local_mean,
        in_specs=(by_tokens, PartitionSpec()),
        out_specs=by_tokens.query,
        axis_names={SEQUENCE},
        check_vma=False,
    )
    return restore(on_devices(queries, points))


def prepare(
    query: Heads,
    key: Shared,
    value: Shared,
    query_domain: TokenDomain,
    domain: TokenDomain,
    bias: ScoreBias,
) -> tuple[Queries, Points, Callable[[Means], Heads]]:
    """Queries and points with heads before tokens, and the map that moves them back."""
    *batch, tokens, heads, features = query.shape
    others, shared = key.shape[-3:-1]
    query = query / jnp.asarray(math.sqrt(features), query.dtype)
    query = query.reshape(*batch, tokens, shared, heads // shared, features)
    if bias is not None:
        bias = bias.reshape(shared, heads // shared, tokens, others)
    queries = Queries(
        jnp.moveaxis(query, -4, -2),
        bias,
        TokenDomain(query_domain.points, period=query_domain.period),
    )
    points = Points(
        jnp.moveaxis(key, -3, -2),
        jnp.moveaxis(value, -3, -2),
        TokenDomain(domain.points, period=domain.period),
        domain.weights,
        domain.end_weights,
        domain.ends,
    )

    def restore(mean: Means) -> Heads:
        return jnp.moveaxis(mean, -2, -4).reshape(*batch, tokens, heads, -1)

    return queries, points, restore


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
    _, points, _ = prepare(query, key, value, domain, domain, None)
    bias = None
    weights = _weights_of_queries(points, region.ends(domain, points.ends))
    if weights is not None:
        # Finite, so that a query that sees nothing has a mean.
        never = float(jnp.finfo(jnp.float32).min) / 4
        bias = jnp.where(weights == 0, never, jnp.log(jnp.where(weights == 0, 1, weights)))
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


def spans_of(
    queries: Queries, points: Points, region: AbstractRegion, in_order: bool
) -> tuple[Span, ...]:
    """The spans of an integral. `in_order`: whether queries and points are the same tokens 0,
    1, 2, …; then a span skips points that none of its queries sees."""
    num_queries = queries.query.shape[-2]
    num_points = points.key.shape[-2]
    reach = region.reach if in_order else None
    size = max(_LEAST_SPAN, -(-num_queries // _MOST_SPANS))
    if not (in_order and region.causal) and size * num_points > _MOST_SCORES:
        # No span can skip points, so one loop is enough.
        size = num_queries
    spans = []
    for start in range(0, num_queries, size):
        stop = min(start + size, num_queries)
        first = 0 if reach is None else max(start - reach, 0)
        last = stop if in_order and region.causal else num_points
        block = max(_LEAST_SPAN, _MOST_SCORES // (last - first))
        spans.append(Span(start, stop, first, last, block))
    return tuple(spans)


@eqx.filter_custom_jvp
def token_mean(
    queries: Queries, points: Points, region: AbstractRegion, spans: tuple[Span, ...]
) -> Mean:
    """The mean of the values under γ. Its derivative only keeps the three parts of `Mean`."""

    def mean_of_block(queries: Queries, points: Points) -> Mean:
        s = _scores(queries, points, region)
        weights = _weights(points, region.ends(queries.domain, points.ends), s)
        visible = s if weights is None else jnp.where(weights == 0, -jnp.inf, s)
        maximum = jnp.max(visible, axis=-1, keepdims=True, initial=jnp.finfo(s.dtype).min)
        gamma = _exponential(s, maximum)
        if weights is not None:
            gamma = weights * gamma
        normaliser = jnp.sum(gamma, axis=-1, keepdims=True)
        normaliser = jnp.where(normaliser == 0, 1, normaliser)
        return Mean(_weighted(gamma, points.value) / normaliser, maximum, normaliser)

    return _in_blocks(mean_of_block, (queries,), (points,), spans)


@token_mean.def_jvp
def _token_mean_jvp(primals, tangents):
    queries, points, region, spans = primals
    mean = Mean(*map(checkpoint_name, token_mean(*primals), RESIDUALS))
    # A gradient recomputes the scores.
    tangent = jax.checkpoint(ft.partial(_tangent, region), prevent_cse=False)
    by_query = (queries, tangents[0], mean)
    return mean, _in_blocks(tangent, by_query, (points, tangents[1]), spans)


def _in_blocks(
    function: Callable[..., Mean],
    by_query: tuple[Queries | Mean, ...],
    by_point: tuple[Points, ...],
    spans: tuple[Span, ...],
) -> Mean:
    """Applies a function to each block of queries and the points of its span."""
    means = []
    for span in spans:
        queries = [x.within(span) for x in by_query]
        points = [x.within(span) for x in by_point]
        means.append(_in_loop(function, queries, points, span))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=-2), *means)


def _in_loop(
    function: Callable[..., Mean],
    queries: list[Queries | Mean],
    points: list[Points],
    span: Span,
) -> Mean:
    tokens = span.stop - span.start
    num_blocks = -(-tokens // span.block)
    if num_blocks == 1:
        return function(*queries, *points)
    blocks = jax.tree.map(ft.partial(_divide, num_blocks=num_blocks), queries)
    means = lax.map(lambda block: function(*block, *points), blocks)
    return jax.tree.map(lambda x: _join(x)[..., :tokens, :], means)


def _divide(
    x: Float[Array, "*batch tokens _"], num_blocks: int
) -> Float[Array, "blocks *batch block _"]:
    """Divides tokens into equal blocks; the last token fills up the last block."""
    block = -(-x.shape[-2] // num_blocks)
    missing = num_blocks * block - x.shape[-2]
    x = jnp.pad(x, [*[(0, 0)] * (x.ndim - 2), (0, missing), (0, 0)], mode="edge")
    return jnp.moveaxis(x.reshape(*x.shape[:-2], num_blocks, block, x.shape[-1]), -3, 0)


def _join(blocks: Float[Array, "blocks *batch block _"]) -> Float[Array, "*batch tokens _"]:
    blocks = jnp.moveaxis(blocks, 0, -3)
    return blocks.reshape(*blocks.shape[:-3], -1, blocks.shape[-1])


def _tangent(
    region: AbstractRegion,
    queries: Queries,
    query_rate: Queries,
    mean: Mean,
    points: Points,
    point_rate: Points,
) -> Mean:
    """The derivative along the given rates; a rate `None` is zero:

    mean' = Σ_z (γ (v' + s' v) + w' γ/w v) - mean n',   n' = Σ_z (γ s' + w' γ/w).
    """
    s = _scores(queries, points, region)
    density = _exponential(s, mean.maximum) / mean.normaliser
    ends = region.ends(queries.domain, points.ends)
    weights = _weights(points, ends, s)
    gamma = density if weights is None else weights * density
    score_rate = jnp.zeros_like(s)
    if query_rate.query is not None:
        score_rate = _products(query_rate.query, points.key)
    if point_rate.key is not None:
        score_rate = score_rate + _products(queries.query, point_rate.key)
    if query_rate.bias is not None:
        score_rate = score_rate + jnp.broadcast_to(query_rate.bias, s.shape).astype(s.dtype)
    gamma_rate = gamma * score_rate
    weight_rate = _weights(point_rate, ends, s)
    if weight_rate is not None:
        gamma_rate = gamma_rate + weight_rate * density
    total = jnp.sum(gamma_rate, axis=-1, keepdims=True)
    tangent = _weighted(gamma_rate, points.value) - mean.mean * total
    if point_rate.value is not None:
        tangent = tangent + _weighted(gamma, point_rate.value)
    # γ depends only on `maximum + log normaliser`; the maximum gets the whole derivative.
    return Mean(tangent, total, jnp.zeros_like(total))


def _scores(queries: Queries, points: Points, region: AbstractRegion) -> Scores:
    """`⟨q, k⟩ + bias`; outside the region, -∞."""
    s = _products(queries.query, points.key)
    if queries.bias is not None:
        s = s + jnp.broadcast_to(queries.bias, s.shape).astype(s.dtype)
    inside = region.indicator(queries.domain, points.domain)
    if inside is None:
        return s
    return jnp.where(jnp.broadcast_to(inside, s.shape), s, -jnp.inf)


def _exponential(s: Scores, maximum: Numbers) -> Scores:
    """`exp(s - maximum)`, limited where padding has the largest score: an infinite number times
    its weight 0 would spread."""
    return jnp.exp(jnp.minimum(s - maximum, math.log(jnp.finfo(s.dtype).max) / 2))


def _weights(points: Points, ends: EndIndicator, s: Scores) -> Scores | None:
    """The weight of each score, or its rate."""
    weights = _weights_of_queries(points, ends)
    if weights is None:
        return None
    return jnp.broadcast_to(jnp.expand_dims(weights, (-4, -3)), s.shape).astype(s.dtype)


def _weights_of_queries(points: Points, ends: EndIndicator) -> Weights:
    """The weights for each query, or their rates; a rate `None` is zero."""
    weights, at_ends = jax.tree.map(
        lambda x: jnp.expand_dims(x, -2), (points.weights, points.end_weights)
    )
    if ends is None or (weights is None and at_ends is None):
        return weights
    weights = jnp.zeros((1, 1)) if weights is None else weights
    at_ends = jnp.zeros((len(ends), 1, 1)) if at_ends is None else at_ends
    for end, is_end in enumerate(ends):
        choice = jnp.broadcast_arrays(is_end, at_ends[..., end, :, :], weights)
        weights = jnp.where(*choice)
    return weights


def _products(query: Means, key: Keys) -> Scores:
    """`⟨q, k⟩`, accumulated in float32 at least."""
    s = _einsum("...xd,...zd->...xz", _merge_rows(query), key)
    return s.reshape(*query.shape[:-1], key.shape[-2])


def _weighted(gamma: Scores, value: Keys) -> Means:
    """`Σ_z γ(x, z) v(z)`."""
    mean = _einsum("...xz,...zd->...xd", _merge_rows(gamma.astype(value.dtype)), value)
    return mean.reshape(*gamma.shape[:-1], value.shape[-1])


def _merge_rows(
    x: Float[Array, "*batch shared repeats tokens last"],
) -> Float[Array, "*batch shared rows last"]:
    """Puts queries that share a key on one axis, for one product without transposes."""
    return x.reshape(*x.shape[:-3], -1, x.shape[-1])


def _einsum(formula: str, a: Array, b: Array) -> Array:
    wide = jnp.promote_types(a.dtype, jnp.float32)
    return jnp.einsum(formula, a, b, preferred_element_type=wide)
