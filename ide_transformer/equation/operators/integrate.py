"""The token integral of attention, by the quadrature of the domain."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..domain import TokenDomain
from .region import AbstractRegion


def split_heads(
    x: Float[Array, "*batch tokens inner"], heads: int
) -> Float[Array, "*batch tokens heads features"]:
    """The features, head by head."""
    return x.reshape(*x.shape[:-1], heads, -1)


def integrate(
    query: Float[Array, "*batch tokens heads features"],
    key: Float[Array, "*batch others shared features"],
    value: Float[Array, "*batch others shared features"],
    domain: TokenDomain,
    query_domain: TokenDomain,
    region: AbstractRegion,
    bias: Float[Array, "heads tokens others"] | None = None,
) -> Float[Array, "*batch tokens heads features"]:
    """`∫ γ(x, x') V(x') dx'` by the quadrature of the domain of x', each head by itself.

    **Arguments:**

    - `domain`: of the keys and values, over which the integral runs.
    - `query_domain`: of the queries; the same one, a part of it, or another.
    - `region`: the part of `domain` that each query sees.
    - `bias`: added to the scores `s_h(x, x')`.
    """
    *batch, tokens, heads, features = query.shape
    shared = key.shape[-2]
    repeats = heads // shared
    # The queries that share a key and value are laid end to end along the token axis.
    query = query.reshape(*batch, tokens, shared, repeats, features) / math.sqrt(features)
    query = jnp.moveaxis(query, -2, -4).reshape(*batch, repeats * tokens, shared, features)
    scores = jnp.einsum("...xhd,...zhd->...hxz", query, key)
    if bias is not None:
        # Query head `s repeats + r` is row block r of shared head s.
        bias = bias.reshape(shared, repeats * tokens, -1)
        scores = scores + jnp.broadcast_to(bias, scores.shape).astype(scores.dtype)
    if domain.log_weights is not None:
        log_weights = jnp.expand_dims(domain.log_weights, (-3, -2))
        scores = scores + jnp.broadcast_to(log_weights, scores.shape).astype(scores.dtype)
    inside = region.indicator(query_domain, domain)
    if inside is not None:
        inside = jnp.broadcast_to(jnp.tile(inside, (repeats, 1)), scores.shape)
        scores = jnp.where(inside, scores, jnp.finfo(scores.dtype).min / 2)
    gamma = jax.nn.softmax(scores, axis=-1)
    mean = jnp.einsum("...hxz,...zhd->...xhd", gamma, value)
    mean = mean.reshape(*batch, repeats, tokens, shared, features)
    return jnp.moveaxis(mean, -4, -2).reshape(*batch, tokens, heads, features)
