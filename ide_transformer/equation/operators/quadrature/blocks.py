import functools as ft
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from ...domain import TokenDomain
from .token_mean import AbstractQuadrature, Domains, Integrand, Mean, tangent_part, weighted


class Span(NamedTuple):
    """The queries `[start, stop)` and the points `[first, last)` that they may see."""

    start: int
    stop: int
    first: int
    last: int


class Blocks(AbstractQuadrature):
    """Queries in blocks, one after the other, each with all the points that it may see at
    once. With one block it is the dense form.

    **Arguments:**

    - `region`: the part of the domain that a query sees.
    - `spans`: the queries and the points of each block.
    """

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
    """Some queries with some points; `None` stays."""
    start, stop, first, last = span
    query, key, value, log_weights, bias, log_end_weights, ends = integrand
    return Integrand(
        query if query is None else query[..., start:stop, :],
        key if key is None else key[..., first:last, :],
        value if value is None else value[..., first:last, :],
        log_weights if log_weights is None else log_weights[..., first:last],
        bias if bias is None else bias[..., start:stop, first:last],
        log_end_weights if log_end_weights is None else log_end_weights[..., first:last],
        ends if ends is None else ends[..., first:last],
    )


def _domains(domains: Domains, span: Span) -> Domains:
    start, stop, first, last = span
    queries, points = domains
    return Domains(
        TokenDomain(queries.points[start:stop], period=queries.period),
        TokenDomain(points.points[first:last], period=points.period),
    )


def _join(parts: list[Mean]) -> Mean:
    if len(parts) == 1:
        return parts[0]
    mean, *scale = zip(*parts, strict=True)
    return Mean(jnp.concatenate(mean, -2), *(jnp.concatenate(x, -1) for x in scale))
