"""The token integral as a quadrature, and its derivative."""

import abc
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, DTypeLike, Float

from ...domain import LOG_ZERO, TokenDomain
from ..positions import AbstractRegion, EndIndicator, Ends


# Names of the values that a gradient should keep, so that it does not run forward again: the
# mean, and the maximum and normaliser of the scores.
RESIDUALS = ("token_mean", "token_maximum", "token_normaliser")

Queries: TypeAlias = Float[Array, "*batch shared repeats tokens features"]
Numbers: TypeAlias = Float[Array, "*batch shared repeats tokens"]
Keys: TypeAlias = Float[Array, "*batch shared others features"]
Scores: TypeAlias = Float[Array, "*batch shared repeats tokens others"]
Weighting: TypeAlias = Float[Array, "... queries others"] | None
Bias: TypeAlias = Float[Array, "shared repeats tokens others"] | None


class Integrand(NamedTuple):
    """The parts of an integral with scores `q k + log w + bias`. Queries are divided by
    `sqrt(features)`. Where the region of a query ends, its log end weights replace `log w`. The
    domains hold the points of the queries and of the integral, without weights."""

    query: Queries
    key: Keys
    value: Keys
    log_weights: Float[Array, "... others"] | None
    bias: Bias
    log_end_weights: Float[Array, "... ends others"] | None
    ends: Ends
    query_domain: TokenDomain
    domain: TokenDomain

    def map(self, axes: "Axes", change: Callable[[Array, int], Any]) -> "Integrand":
        """Applies `change(part, axis)` to the parts with an axis."""

        def changed(part: Any, axis: int | None) -> Any:
            return part if axis is None else jax.tree.map(lambda x: change(x, axis), part)

        return Integrand(*map(changed, self, axes))


# The axis of the queries, or of the points, in each part.
Axes: TypeAlias = tuple[int | None, ...]
QUERIES: Axes = (-2, None, None, None, -2, None, None, -2, None)
POINTS: Axes = (None, -2, -2, -1, -1, -1, -1, None, -2)


class Mean(NamedTuple):
    """The mean of the values under γ, and the two numbers that turn a score s into

    γ = exp(s - maximum - log normaliser).
    """

    mean: Queries
    maximum: Numbers
    normaliser: Numbers

    def map(self, change: Callable[[Array, int], Any]) -> "Mean":
        """Applies `change(part, axis)` to all parts, with the axis of the queries."""
        return Mean(
            change(self.mean, -2), change(self.maximum, -1), change(self.normaliser, -1)
        )


class AbstractQuadrature(eqx.Module):
    """A way to sum over the points. The derivative recomputes the scores."""

    region: AbstractRegion

    @abc.abstractmethod
    def mean(self, integrand: Integrand) -> Mean: ...

    @abc.abstractmethod
    def tangent(self, integrand: Integrand, rate: Integrand, mean: Mean) -> Mean:
        """The derivative along `rate`, in which `None` is zero: `Σ_z γ (v' + s' v)`, and as
        maximum `Σ_z γ s'`, the derivative of `maximum + log normaliser`."""

    def scores(self, integrand: Integrand) -> Scores:
        """The scores; outside the region, a large negative number."""
        s = products(integrand.query, integrand.key)
        weighting = log_weighting(integrand, self.ends(integrand))
        s = with_terms(s, weighting, integrand.bias)
        inside = self.region.indicator(integrand.query_domain, integrand.domain)
        if inside is None:
            return s
        return jnp.where(jnp.broadcast_to(inside, s.shape), s, outside(s.dtype))

    def ends(self, integrand: Integrand) -> EndIndicator:
        """Where end weights count; `None` for nowhere."""
        return self.region.ends(integrand.query_domain, integrand.ends)


@eqx.filter_custom_jvp
def token_mean(integrand: Integrand, quadrature: AbstractQuadrature) -> Mean:
    """The mean of the values under γ, whose derivative only keeps the three parts of `Mean`."""
    return quadrature.mean(integrand)


@token_mean.def_jvp
def _token_mean_jvp(primals, tangents):
    integrand, quadrature = primals
    mean = token_mean(integrand, quadrature)
    mean = Mean(*map(checkpoint_name, mean, RESIDUALS))
    rate = quadrature.tangent(integrand, tangents[0], mean)
    tangent = rate.mean - mean.mean * rate.maximum[..., None]
    # γ depends on `maximum + log normaliser` only: give the maximum all of its derivative.
    return mean, Mean(tangent, rate.maximum, jnp.zeros_like(mean.normaliser))


def products(query: Queries, key: Keys) -> Scores:
    """`⟨q, k⟩`, accumulated in float32 at least."""
    s = _einsum("...xd,...zd->...xz", _end_to_end(query), key)
    return s.reshape(*query.shape[:-1], key.shape[-2])


def weighted(gamma: Scores, value: Keys) -> Queries:
    """`Σ_z γ(x, z) v(z)`."""
    mean = _einsum("...xz,...zd->...xd", _end_to_end(gamma.astype(value.dtype)), value)
    return mean.reshape(*gamma.shape[:-1], value.shape[-1])


def outside(dtype: DTypeLike) -> float:
    """The score of a point outside the region: finite, and below the score of padding."""
    return float(jnp.finfo(dtype).min) / 2


def log_weighting(integrand: Integrand, ends: EndIndicator) -> Weighting:
    """`log w` for each query, or its rate."""
    weights, at_ends = jax.tree.map(
        lambda x: jnp.expand_dims(x, -2), (integrand.log_weights, integrand.log_end_weights)
    )
    if ends is None or (weights is None and at_ends is None):
        return weights
    # In a rate, `None` is zero.
    weights = jnp.zeros((1, 1)) if weights is None else weights
    at_ends = jnp.zeros((len(ends), 1, 1)) if at_ends is None else at_ends
    for number, here in enumerate(ends):
        choice = jnp.broadcast_arrays(here, at_ends[..., number, :, :], weights)
        weights = jnp.where(*choice)
    return weights


def with_terms(s: Scores, weighting: Weighting, bias: Bias) -> Scores:
    """`s + log w + bias`, or the sum of their rates."""
    if weighting is not None:
        weighting = jnp.expand_dims(weighting, (-4, -3))
        s = s + jnp.broadcast_to(weighting, s.shape).astype(s.dtype)
    if bias is not None:
        s = s + jnp.broadcast_to(bias, s.shape).astype(s.dtype)
    return s


def tangent_part(
    s: Scores,
    integrand: Integrand,
    rate: Integrand,
    scale: tuple[Numbers, Numbers],
    ends: EndIndicator,
) -> Mean:
    """`AbstractQuadrature.tangent` of a part; `scale` is maximum and normaliser."""
    maximum, normaliser = scale
    # Not `maximum + log normaliser`, which rounds the logarithm away if all points are padding.
    gamma = jnp.exp(s - maximum[..., None] - jnp.log(normaliser)[..., None])
    gamma = gamma + _of_zero_weights(s, integrand, scale, ends)
    # The derivative of the scores, without weights.
    query = integrand.query
    key = integrand.key
    changed = jnp.zeros((), jnp.promote_types(query.dtype, jnp.float32))
    if rate.query is not None:
        changed = products(rate.query, key)
    if rate.key is not None:
        changed = changed + products(query, rate.key)
    changed = jnp.broadcast_to(changed, (*query.shape[:-1], key.shape[-2]))
    changed = gamma * with_terms(changed, None, rate.bias)
    weighting = log_weighting(rate, ends)
    if weighting is not None:
        changed = changed + _weight_rates(s, gamma, integrand, weighting, scale)
    # A query that sees nothing has constant scores.
    sees = maximum > outside(s.dtype)
    total = jnp.where(sees, jnp.sum(changed, axis=-1), 0)
    tangent = jnp.where(sees[..., None], weighted(changed, integrand.value), 0)
    if rate.value is not None:
        tangent = tangent + weighted(gamma, rate.value)
    return Mean(tangent, total, jnp.zeros_like(total))


@eqx.filter_custom_jvp
def _of_zero_weights(
    s: Scores, integrand: Integrand, scale: tuple[Numbers, Numbers], ends: EndIndicator
) -> Scores:
    """γ where w = 0, which is 0 but has a derivative with respect to w."""
    return jnp.zeros_like(s)


@_of_zero_weights.def_jvp
def _of_zero_weights_jvp(primals, tangents):
    s, integrand, scale, ends = primals
    zero = jnp.zeros_like(s)
    rate = tangents[1]
    weighting = None if rate is None else log_weighting(rate, ends)
    if weighting is None:
        return zero, zero
    return zero, _weight_rates(s, zero, integrand, weighting, scale)


def _weight_rates(
    s: Scores,
    gamma: Scores,
    integrand: Integrand,
    weighting: Weighting,
    scale: tuple[Numbers, Numbers],
) -> Scores:
    """The derivative of γ along w', `γ w'/w`, also where w = 0."""
    maximum, normaliser = (x[..., None] for x in scale)
    # Scores with w = 0; those outside the region are lower.
    unseen = (s < LOG_ZERO / 2) & (s > 1.5 * LOG_ZERO)
    own = with_terms(products(integrand.query, integrand.key), None, integrand.bias)
    # Limits the scores of padding, since an infinite rate times 0 would spread.
    most = math.log(jnp.finfo(s.dtype).max) / 2
    density = jnp.exp(jnp.minimum(own - maximum - jnp.log(normaliser), most))
    # A query that sees only points with w = 0 has no normaliser.
    density = jnp.where(maximum > LOG_ZERO / 2, density, 0)
    return jnp.where(unseen, density, gamma) * with_terms(jnp.zeros_like(s), weighting, None)


def _end_to_end(
    x: Float[Array, "*batch shared repeats tokens last"],
) -> Float[Array, "*batch shared rows last"]:
    """Puts queries that share a key on one axis, for one product without transposes."""
    return x.reshape(*x.shape[:-3], -1, x.shape[-1])


def _einsum(which: str, a: Array, b: Array) -> Array:
    wide = jnp.promote_types(a.dtype, jnp.float32)
    return jnp.einsum(which, a, b, preferred_element_type=wide)
