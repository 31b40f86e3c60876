"""Quadratures in blocks of queries and points."""

import functools as ft
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ...domain import TokenDomain
from .token_mean import (
    POINTS,
    QUERIES,
    AbstractQuadrature,
    Integrand,
    Mean,
    tangent_part,
    weighted,
)


class Span(NamedTuple):
    """Queries `[start, stop)`, which may see the points `[first, last)`."""

    start: int
    stop: int
    first: int
    last: int


class Blocks(AbstractQuadrature):
    """Queries in blocks, each with all points that it may see. One block is the dense form."""

    spans: tuple[Span, ...] = eqx.field(static=True)

    def mean(self, integrand: Integrand) -> Mean:
        parts = []
        for span in self.spans:
            here = _part(integrand, span)
            s = self.scores(here)
            maximum = jnp.max(s, axis=-1)
            gamma = jnp.exp(s - maximum[..., None])
            normaliser = jnp.sum(gamma, axis=-1)
            mean = weighted(gamma, here.value) / normaliser[..., None]
            parts.append(Mean(mean, maximum, normaliser))
        return _join(parts)

    def tangent(self, integrand: Integrand, rate: Integrand, mean: Mean) -> Mean:
        # A gradient recomputes a block.
        @ft.partial(jax.checkpoint, prevent_cse=False)
        def one(here, rate, scale):
            return tangent_part(self.scores(here), here, rate, scale, self.ends(here))

        parts = []
        for span in self.spans:
            queries = slice(span.start, span.stop)
            scale = mean.maximum[..., queries], mean.normaliser[..., queries]
            parts.append(one(_part(integrand, span), _part(rate, span), scale))
        return _join(parts)


def _part(integrand: Integrand, span: Span) -> Integrand:
    start, stop, first, last = span
    queries = integrand.map(QUERIES, lambda x, axis: lax.slice_in_dim(x, start, stop, 1, axis))
    return queries.map(POINTS, lambda x, axis: lax.slice_in_dim(x, first, last, 1, axis))


def _join(parts: list[Mean]) -> Mean:
    if len(parts) == 1:
        return parts[0]
    mean, *scale = zip(*parts, strict=True)
    return Mean(jnp.concatenate(mean, -2), *(jnp.concatenate(x, -1) for x in scale))


class Stream(AbstractQuadrature):
    """Queries and points in blocks of one size, in two loops, for integrands without a bias:

        m ← max(m, max_z s),   n ← n exp(m_old - m) + Σ_z exp(s - m),
        a ← a exp(m_old - m) + Σ_z exp(s - m) v(z);     mean = a / n.

    Reference: Milakov, Gimelshein, arXiv 1805.02867; Dao et al., arXiv 2205.14135."""

    block: int = eqx.field(static=True)
    # Whether queries and points are the same consecutive tokens.
    in_order: bool = eqx.field(static=True)

    def mean(self, integrand: Integrand) -> Mean:
        points = self._points(integrand)

        def block_mean(queries):
            start = _zero(queries, points)
            lowest = jnp.full_like(start.maximum, jnp.finfo(start.maximum.dtype).min)

            def add(sums, there, _):
                s = self._scores(queries, there)
                maximum = jnp.maximum(sums.maximum, jnp.max(s, axis=-1))
                shrink = jnp.exp(sums.maximum - maximum)
                gamma = jnp.exp(s - maximum[..., None])
                total = sums.mean * shrink[..., None] + weighted(gamma, there.parts.value)
                return Mean(total, maximum, sums.normaliser * shrink + jnp.sum(gamma, axis=-1))

            sums = self._over(queries, points, None, add, start._replace(maximum=lowest))
            return sums._replace(mean=sums.mean / sums.normaliser[..., None])

        blocks = lax.map(block_mean, self._queries(integrand))
        return _uncut(blocks, integrand.query.shape[-2])

    def tangent(self, integrand: Integrand, rate: Integrand, mean: Mean) -> Mean:
        points = self._points(integrand)
        rates = self._cut_points(rate)

        # A gradient recomputes a block, and keeps these sums of a block of queries.
        @jax.checkpoint
        def part(queries, query_rate, scale, there, rates):
            here = _together(queries, there)
            rate = rates._replace(query=query_rate)
            s = self._scores(queries, there)
            return tangent_part(s, here, rate, scale, self.ends(here))

        @jax.checkpoint
        def block_tangent(x):
            queries, query_rate, scale = x

            def add(sums, there, rates):
                new = part(queries, query_rate, scale, there, rates)
                return jax.tree.map(jnp.add, sums, new)

            return self._over(queries, points, rates, add, _zero(queries, points))

        query_rate = None if rate.query is None else _cut(rate.query, -2, self.block)
        # Queries that fill up a block have no scores: 1 is a safe normaliser.
        scale = (
            _cut(mean.maximum, -1, self.block),
            _cut(mean.normaliser, -1, self.block, fill=1.0),
        )
        queries = self._queries(integrand)
        return _uncut(
            lax.map(block_tangent, (queries, query_rate, scale)), integrand.query.shape[-2]
        )

    def _queries(self, integrand: Integrand) -> "_Queries":
        cut = integrand.map(QUERIES, lambda x, axis: _cut(x, axis, self.block))
        return _Queries(jnp.arange(len(cut.query)), cut.query, cut.query_domain)

    def _points(self, integrand: Integrand) -> "_Points":
        # One row for all queries.
        real = _cut(jnp.ones((1, integrand.key.shape[-2]), bool), -1, self.block)
        return _Points(jnp.arange(len(real)), real, self._cut_points(integrand))

    def _cut_points(self, integrand: Integrand) -> Integrand:
        parts = integrand._replace(query=None, query_domain=None, bias=None)
        return parts.map(POINTS, lambda x, axis: _cut(x, axis, self.block))

    def _scores(self, queries: "_Queries", points: "_Points") -> Float[Array, "..."]:
        s = self.scores(_together(queries, points))
        return jnp.where(jnp.broadcast_to(points.real, s.shape), s, -jnp.inf)

    def _over(self, queries, points, rates, add: Callable, start: Mean) -> Mean:
        """Applies `add` to each block of points that some of the queries see."""

        def step(sums, x):
            starts = queries.index * self.block, x[0].index * self.block
            ranges = ((start, start + self.block) for start in starts)
            seen = jnp.asarray(not self.in_order or self.region.meets(*ranges))
            return lax.cond(seen, add, lambda sums, *_: sums, sums, *x), None

        return lax.scan(step, start, (points, rates))[0]


class _Queries(NamedTuple):
    """Blocks of queries, along a leading axis, with their indices and points of Ω_x."""

    index: Int[Array, "..."]
    query: Float[Array, "..."]
    domain: TokenDomain


class _Points(NamedTuple):
    """Blocks of points, along a leading axis. Points that fill up a block are not `real`."""

    index: Int[Array, "..."]
    real: Bool[Array, "..."]
    parts: Integrand


def _together(queries: _Queries, points: _Points) -> Integrand:
    return points.parts._replace(query=queries.query, query_domain=queries.domain)


def _zero(queries: _Queries, points: _Points) -> Mean:
    wide = jnp.promote_types(queries.query.dtype, jnp.float32)
    shape = queries.query.shape[:-1]
    mean = jnp.zeros((*shape, points.parts.value.shape[-1]), wide)
    return Mean(mean, jnp.zeros(shape, wide), jnp.zeros(shape, wide))


def _cut(x: Array, axis: int, block: int, *, fill: float = 0.0) -> Array:
    """Cuts an axis into blocks along a leading axis, and fills up the last one."""
    axis = axis % x.ndim
    rest = -x.shape[axis] % block
    padding = [(0, rest if i == axis else 0) for i in range(x.ndim)]
    x = jnp.pad(x, padding, constant_values=fill) if rest else x
    x = x.reshape(*x.shape[:axis], -1, block, *x.shape[axis + 1 :])
    return jnp.moveaxis(x, axis, 0)


def _uncut(blocks: Mean, tokens: int) -> Mean:
    def one(x, axis):
        x = jnp.moveaxis(x, 0, axis - 1)
        axis = axis % x.ndim
        x = x.reshape(*x.shape[: axis - 1], -1, *x.shape[axis + 1 :])
        return lax.slice_in_dim(x, 0, tokens, axis=axis - 1)

    return blocks.map(one)
