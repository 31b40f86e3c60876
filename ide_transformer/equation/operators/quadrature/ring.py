"""The token integral on several devices, in a ring."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Int, PyTree

from ...devices import SEQUENCE, token_devices
from .token_mean import POINTS, QUERIES, AbstractQuadrature, Integrand, Mean


class Ring(AbstractQuadrature):
    """Domain decomposition of Ω_x. Each device along the axis `sequence` keeps its part Ω_d
    with its queries, and the points of all parts visit it one after the other:

        mean = Σ_d n_d exp(m_d - m) mean_d / n,   n = Σ_d n_d exp(m_d - m),   m = max_d m_d,

    `mean_d`, `m_d`, `n_d` the mean over Ω_d by `part`, its maximum and its normaliser. For the
    gradient they visit again. Reference: Liu, Zaharia, Abbeel, arXiv 2310.01889."""

    part: AbstractQuadrature

    def mean(self, integrand: Integrand) -> Mean:
        def local(integrand):
            def visit(a, hop):
                b = self.part.mean(_visited(integrand, hop))
                maximum = jnp.maximum(a.maximum, b.maximum)
                first = a.normaliser * jnp.exp(a.maximum - maximum)
                second = b.normaliser * jnp.exp(b.maximum - maximum)
                normaliser = first + second
                share = (second / normaliser)[..., None]
                mean = a.mean * (1 - share) + b.mean * share
                return Mean(mean, maximum, normaliser), None

            first = self.part.mean(_visited(integrand, jnp.array(0)))
            return lax.scan(visit, first, jnp.arange(1, token_devices()))[0]

        return _on_parts(local, (integrand,), integrand)

    def tangent(self, integrand: Integrand, rate: Integrand, mean: Mean) -> Mean:
        def local(integrand, rate, mean):
            # A gradient keeps nothing of a visit; the points come again.
            @jax.checkpoint
            def part(hop, integrand, rate, mean):
                return self.part.tangent(_visited(integrand, hop), _visited(rate, hop), mean)

            def visit(total, hop):
                new = part(hop, integrand, rate, mean)
                return jax.tree.map(jnp.add, total, new), None

            zero = jax.tree.map(jnp.zeros_like, mean)
            return lax.scan(visit, zero, jnp.arange(token_devices()))[0]

        return _on_parts(local, (integrand, rate, mean), integrand)


def _on_parts(local: Callable[..., Mean], arguments: tuple, integrand: Integrand) -> Mean:
    rank = integrand.query.ndim
    out: Any = (_spec(rank, -2), _spec(rank - 1, -1), _spec(rank - 1, -1))
    return jax.shard_map(
        local,
        in_specs=tuple(map(_specs, arguments)),
        out_specs=Mean(*out),
        axis_names={SEQUENCE},
        check_vma=False,
    )(*arguments)


def _specs(argument: Integrand | Mean) -> PyTree[PartitionSpec]:
    if isinstance(argument, Mean):
        return argument.map(lambda x, axis: _spec(x.ndim, axis))
    axes = tuple(q or p for q, p in zip(QUERIES, POINTS, strict=True))
    return argument.map(axes, lambda x, axis: _spec(x.ndim, axis))


def _spec(rank: int, axis: int) -> PartitionSpec:
    return PartitionSpec(*(SEQUENCE if i == axis % rank else None for i in range(rank)))


def _visited(integrand: Integrand, hop: Int[Array, ""]) -> Integrand:
    """The queries of this device with the points `hop` devices before it."""
    bias = integrand.bias
    if bias is not None:
        # The bias of a query is on its device, for all points.
        size = bias.shape[-1] // token_devices()
        part = (lax.axis_index(SEQUENCE) - hop) % token_devices()
        bias = lax.dynamic_slice_in_dim(bias, part * size, size, axis=-1)
    points = integrand._replace(query=None, bias=None, query_domain=None)
    devices = token_devices()

    def by(hop):
        ring = [(source, (source + hop) % devices) for source in range(devices)]
        return lambda arrays: jax.tree.map(lambda x: lax.ppermute(x, SEQUENCE, ring), arrays)

    # All devices take the same branch.
    branches = [lambda arrays: arrays, *map(by, range(1, devices))]
    there = lax.switch(hop, branches, points)
    return there._replace(query=integrand.query, bias=bias, query_domain=integrand.query_domain)
