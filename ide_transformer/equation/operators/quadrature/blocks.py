import functools as ft

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...domain import TokenDomain
from ..region import AbstractRegion
from .token_mean import (
    AbstractQuadrature,
    Integrand,
    Mean,
    add_to_scores,
    scores,
    tangent_of,
    weighted,
)


class Blocks(AbstractQuadrature):
    """Queries in blocks, one after the other, each with all the points that it may see at
    once. With one block it is the dense form.

    **Arguments:**

    - `region`: the part of the domain that a query sees.
    - `spans`: for each block the queries `[start, stop)` and the points `[first, last)`.
    """

    region: AbstractRegion
    spans: tuple[tuple[int, int, int, int], ...] = eqx.field(static=True)

    def mean(self, integrand: Integrand, domains: tuple[TokenDomain, TokenDomain]) -> Mean:
        parts = []
        for span in self.spans:
            here = _part(integrand, span)
            s = self._scores(here, _domains(domains, span))
            maximum = jnp.max(s, axis=-1)
            gamma = jnp.exp(s - maximum[..., None])
            normaliser = jnp.sum(gamma, axis=-1)
            mean = weighted(gamma, here.value) / normaliser[..., None]
            parts.append(Mean(mean, maximum, normaliser))
        return _join(parts)

    def tangent(
        self,
        integrand: Integrand,
        rate: Integrand,
        mean: Mean,
        domains: tuple[TokenDomain, TokenDomain],
    ) -> Mean:
        parts = []
        for span in self.spans:
            start, stop, _, _ = span

            # Nothing of a block is kept.
            @ft.partial(jax.checkpoint, prevent_cse=False)
            def one(here, rate, maximum, normaliser, domains):
                s = self._scores(here, domains)
                return tangent_of(s, here, rate, maximum, normaliser)

            scale = mean.maximum[..., start:stop], mean.normaliser[..., start:stop]
            here, there = _part(integrand, span), _part(rate, span)
            parts.append(one(here, there, *scale, _domains(domains, span)))
        return _join(parts)

    def _scores(
        self, integrand: Integrand, domains: tuple[TokenDomain, TokenDomain]
    ) -> Float[Array, "*batch shared repeats tokens others"]:
        s = scores(integrand.query, integrand.key)
        inside = self.region.indicator(*domains)
        return add_to_scores(s, integrand.log_weights, integrand.bias, inside)


def _part(integrand: Integrand, span: tuple[int, int, int, int]) -> Integrand:
    """Some queries with some points; `None` stays."""
    start, stop, first, last = span
    query, key, value, log_weights, bias = integrand
    return Integrand(
        query if query is None else query[..., start:stop, :],
        key if key is None else key[..., first:last, :],
        value if value is None else value[..., first:last, :],
        log_weights if log_weights is None else log_weights[..., first:last],
        bias if bias is None else bias[..., start:stop, first:last],
    )


def _domains(
    domains: tuple[TokenDomain, TokenDomain], span: tuple[int, int, int, int]
) -> tuple[TokenDomain, TokenDomain]:
    start, stop, first, last = span
    of_queries, of_points = domains
    return (
        TokenDomain(of_queries.points[start:stop]),
        TokenDomain(of_points.points[first:last]),
    )


def _join(parts: list[Mean]) -> Mean:
    if len(parts) == 1:
        return parts[0]
    axes = (-2, -1, -1)
    return Mean(
        *(
            jnp.concatenate(x, axis)
            for x, axis in zip(zip(*parts, strict=True), axes, strict=True)
        )
    )
