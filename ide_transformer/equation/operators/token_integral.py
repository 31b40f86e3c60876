"""The token integral of attention, by the quadrature of the domain."""

import functools as ft
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec
from jaxtyping import Array, DTypeLike, Float

from ..devices import SEQUENCE, token_devices
from ..domain import TokenDomain
from .positions import AbstractRegion, EndIndicator, Ends, Heads, ScoreBias


# Queries are computed in at most 8 spans of at least 64 tokens, each with the points that it may
# see. A span with more scores is a loop over blocks of queries. Fastest on two cores.
_LEAST_SPAN = 64
_MOST_SPANS = 8
_MOST_SCORES = 2**18

# Names of the values that a gradient should keep, so that it does not run forward again: the
# mean, and the maximum and normaliser of the scores.
RESIDUALS = ("token_mean", "token_maximum", "token_normaliser")

Queries: TypeAlias = Float[Array, "*batch shared repeats tokens features"]
Numbers: TypeAlias = Float[Array, "*batch shared repeats tokens"]
Keys: TypeAlias = Float[Array, "*batch shared others features"]
Scores: TypeAlias = Float[Array, "*batch shared repeats tokens others"]
# Keys, or values, which may have another width.
Shared: TypeAlias = Float[Array, "*batch others shared _"]
# The axis of the queries, or of the points, in each part of an integrand.
Axes: TypeAlias = tuple[int | None, ...]


class Integrand(NamedTuple):
    """The parts of an integral with scores `q k + log w + bias`. Queries are divided by
    `sqrt(features)`. Where the region of a query ends, its log end weights replace `log w`. The
    domains hold the points of the queries and of the integral, without weights."""

    query: Queries
    key: Keys
    value: Keys
    log_weights: Float[Array, "... others"] | None
    log_end_weights: Float[Array, "... ends others"] | None
    ends: Ends
    bias: Float[Array, "shared repeats tokens others"] | None
    query_domain: TokenDomain
    domain: TokenDomain

    def map(self, axes: Axes, change: Callable[[Array, int], Any]) -> "Integrand":
        """Applies `change(array, axis)` to the parts with an axis."""

        def change_part(part: Any, axis: int | None) -> Any:
            return part if axis is None else jax.tree.map(lambda x: change(x, axis), part)

        return Integrand(*map(change_part, self, axes))


_QUERIES: Axes = (-2, None, None, None, None, None, -2, -2, None)
_POINTS: Axes = (None, -2, -2, -1, -1, -1, -1, None, -2)


class Mean(NamedTuple):
    """The mean of the values under γ, and the two numbers that turn a score s into

    γ = exp(s - maximum - log normaliser).
    """

    mean: Queries
    maximum: Numbers
    normaliser: Numbers


def integrate(
    query: Heads,
    key: Shared,
    value: Shared,
    query_domain: TokenDomain,
    domain: TokenDomain,
    region: AbstractRegion,
    bias: ScoreBias = None,
) -> Float[Array, "*batch tokens heads value_features"]:
    """`∫ γ(x, x') V(x') dx'` over the region of each x, for each head. Where devices divide the
    tokens, each integrates for its own queries over the points of all."""
    in_order = query_domain is domain and domain.consecutive
    devices = token_devices()
    is_plain = in_order and bias is None and value.shape[-1] == key.shape[-1]
    fits = query.shape[-1] <= 128 and query.shape[-1] % 8 == 0 and query.shape[-3] > 1
    # The flash attention of cuDNN takes low precision only.
    is_low = jax.default_backend() == "gpu" and query.dtype == jnp.bfloat16
    if is_plain and fits and is_low and devices == 1:
        return fused_mean(query, key, value, domain, region)
    integrand, restore = prepare(query, key, value, query_domain, domain, bias)
    if devices == 1 or query.shape[-3] % devices:
        return restore(mean_in_spans(integrand, region, in_order))

    def partition(array: Array, axis: int) -> PartitionSpec:
        return PartitionSpec(*[None] * (array.ndim + axis), SEQUENCE)

    whole = jax.tree.map(lambda x: PartitionSpec(), integrand)
    divided = integrand.map(_QUERIES, partition)
    specs = Integrand(*(a if x is None else b for x, a, b in zip(_QUERIES, whole, divided)))
    on_devices = jax.shard_map(
        lambda integrand: mean_in_spans(integrand, region, in_order=False),
        in_specs=(specs,),
        out_specs=specs.query,
        axis_names={SEQUENCE},
        check_vma=False,
    )
    return restore(on_devices(integrand))


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
    log_weights, log_end_weights = jax.tree.map(
        lambda x: x.astype(dtype), (domain.log_weights, domain.log_end_weights)
    )
    integrand = Integrand(
        jnp.moveaxis(query, -4, -2),
        jnp.moveaxis(key, -3, -2),
        jnp.moveaxis(value, -3, -2),
        log_weights,
        log_end_weights,
        domain.ends,
        bias,
        TokenDomain(query_domain.points, period=query_domain.period),
        TokenDomain(domain.points, period=domain.period),
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
    bias = _log_weighting(integrand, region.ends(domain, integrand.ends))
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


def mean_in_spans(
    integrand: Integrand,
    region: AbstractRegion,
    in_order: bool,
    *,
    most_scores: int = _MOST_SCORES,
) -> Queries:
    """The mean of each query. `in_order` says that queries and points are the same tokens 0, 1,
    2, …; then no span sees later points, or points before its window."""
    tokens = integrand.query.shape[-2]
    others = integrand.key.shape[-2]
    reach = region.reach if in_order else None
    size = max(_LEAST_SPAN, -(-tokens // _MOST_SPANS))
    means = []
    for start in range(0, tokens, size):
        stop = min(start + size, tokens)
        first = 0 if reach is None else max(start - reach, 0)
        last = stop if in_order and region.causal else others
        span = integrand.map(
            _QUERIES, lambda x, axis: lax.slice_in_dim(x, start, stop, axis=axis)
        ).map(_POINTS, lambda x, axis: lax.slice_in_dim(x, first, last, axis=axis))
        block = max(1, most_scores // (last - first))
        means.append(mean_in_blocks(span, region, block))
    return means[0] if len(means) == 1 else jnp.concatenate(means, axis=-2)


def mean_in_blocks(integrand: Integrand, region: AbstractRegion, block: int) -> Queries:
    """The mean of each query, in a loop over blocks of queries."""
    tokens = integrand.query.shape[-2]
    if tokens <= block:
        return token_mean(integrand, region).mean
    # Of equal size, so that few queries fill up the last one.
    num_blocks = -(-tokens // block)
    block = -(-tokens // num_blocks)

    def divide(x: Array, axis: int) -> Array:
        axis += x.ndim
        padding = [(0, 0)] * x.ndim
        padding[axis] = (0, num_blocks * block - tokens)
        x = jnp.pad(x, padding, mode="edge")
        x = x.reshape(*x.shape[:axis], num_blocks, block, *x.shape[axis + 1 :])
        return jnp.moveaxis(x, axis, 0)

    divided = integrand.map(_QUERIES, divide)
    blocks = divided.query, divided.bias, divided.query_domain

    def mean_of_block(block) -> Queries:
        query, bias, query_domain = block
        queries = integrand._replace(query=query, bias=bias, query_domain=query_domain)
        return token_mean(queries, region).mean

    means = jnp.moveaxis(lax.map(mean_of_block, blocks), 0, -3)
    means = means.reshape(*means.shape[:-3], -1, means.shape[-1])
    return means[..., :tokens, :]


@eqx.filter_custom_jvp
def token_mean(integrand: Integrand, region: AbstractRegion) -> Mean:
    """The mean of the values under γ, whose derivative only keeps the three parts of `Mean`."""
    s = _scores(integrand, region)
    maximum = jnp.max(s, axis=-1)
    gamma = jnp.exp(s - maximum[..., None])
    normaliser = jnp.sum(gamma, axis=-1)
    return Mean(_weighted(gamma, integrand.value) / normaliser[..., None], maximum, normaliser)


@token_mean.def_jvp
def _token_mean_jvp(primals, tangents):
    integrand, region = primals
    mean = token_mean(integrand, region)
    mean = Mean(*map(checkpoint_name, mean, RESIDUALS))
    # A gradient recomputes the scores.
    tangent = jax.checkpoint(ft.partial(_tangent, region), prevent_cse=False)
    return mean, tangent(integrand, tangents[0], mean)


def _tangent(region: AbstractRegion, integrand: Integrand, rate: Integrand, mean: Mean) -> Mean:
    """The derivative along `rate`, in which `None` is zero:

    mean' = Σ_z γ (v' + s' v) - mean Σ_z γ s',   (maximum + log normaliser)' = Σ_z γ s'.
    """
    query, key, value = integrand[:3]
    s = _scores(integrand, region)
    # Not `maximum + log normaliser`, which rounds the logarithm away if all points are padding.
    gamma = jnp.exp(s - mean.maximum[..., None] - jnp.log(mean.normaliser)[..., None])
    score_rate = jnp.zeros((), s.dtype)
    if rate.query is not None:
        score_rate = _products(rate.query, key)
    if rate.key is not None:
        score_rate = score_rate + _products(query, rate.key)
    ends = region.ends(integrand.query_domain, integrand.ends)
    score_rate = jnp.broadcast_to(score_rate, s.shape)
    score_rate = _with_terms(score_rate, _log_weighting(rate, ends), rate.bias)
    changed = gamma * score_rate
    # A query that sees nothing has constant scores.
    sees = mean.maximum > _outside(s.dtype)
    total = jnp.where(sees, jnp.sum(changed, axis=-1), 0)
    tangent = jnp.where(sees[..., None], _weighted(changed, value), 0)
    tangent = tangent - mean.mean * total[..., None]
    if rate.value is not None:
        tangent = tangent + _weighted(gamma, rate.value)
    # γ depends on `maximum + log normaliser` only: give the maximum all of its derivative.
    return Mean(tangent, total, jnp.zeros_like(total))


def _scores(integrand: Integrand, region: AbstractRegion) -> Scores:
    """The scores; outside the region, a large negative number."""
    s = _products(integrand.query, integrand.key)
    ends = region.ends(integrand.query_domain, integrand.ends)
    s = _with_terms(s, _log_weighting(integrand, ends), integrand.bias)
    inside = region.indicator(integrand.query_domain, integrand.domain)
    if inside is None:
        return s
    return jnp.where(jnp.broadcast_to(inside, s.shape), s, _outside(s.dtype))


def _outside(dtype: DTypeLike) -> float:
    """The score of a point outside the region: finite, and below the score of padding."""
    return float(jnp.finfo(dtype).min) / 2


def _products(query: Queries, key: Keys) -> Scores:
    """`⟨q, k⟩`, accumulated in float32 at least."""
    s = _einsum("...xd,...zd->...xz", _end_to_end(query), key)
    return s.reshape(*query.shape[:-1], key.shape[-2])


def _weighted(gamma: Scores, value: Keys) -> Queries:
    """`Σ_z γ(x, z) v(z)`."""
    mean = _einsum("...xz,...zd->...xd", _end_to_end(gamma.astype(value.dtype)), value)
    return mean.reshape(*gamma.shape[:-1], value.shape[-1])


def _end_to_end(
    x: Float[Array, "*batch shared repeats tokens last"],
) -> Float[Array, "*batch shared rows last"]:
    """Puts queries that share a key on one axis, for one product without transposes."""
    return x.reshape(*x.shape[:-3], -1, x.shape[-1])


def _einsum(formula: str, a: Array, b: Array) -> Array:
    wide = jnp.promote_types(a.dtype, jnp.float32)
    return jnp.einsum(formula, a, b, preferred_element_type=wide)


def _log_weighting(
    integrand: Integrand, ends: EndIndicator
) -> Float[Array, "... queries others"] | None:
    """`log w` for each query, or its rate."""
    weights, at_ends = jax.tree.map(
        lambda x: jnp.expand_dims(x, -2), (integrand.log_weights, integrand.log_end_weights)
    )
    if ends is None or (weights is None and at_ends is None):
        return weights
    # In a rate, `None` is zero.
    weights = jnp.zeros((1, 1)) if weights is None else weights
    at_ends = jnp.zeros((len(ends), 1, 1)) if at_ends is None else at_ends
    for number, is_end in enumerate(ends):
        choice = jnp.broadcast_arrays(is_end, at_ends[..., number, :, :], weights)
        weights = jnp.where(*choice)
    return weights


def _with_terms(
    s: Scores,
    weighting: Float[Array, "... queries others"] | None,
    bias: Float[Array, "shared repeats tokens others"] | None,
) -> Scores:
    """`s + log w + bias`, or the sum of their rates."""
    if weighting is not None:
        weighting = jnp.expand_dims(weighting, (-4, -3))
        s = s + jnp.broadcast_to(weighting, s.shape).astype(s.dtype)
    if bias is not None:
        s = s + jnp.broadcast_to(bias, s.shape).astype(s.dtype)
    return s
