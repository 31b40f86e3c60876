"""Attention whose queries, keys and values are convolutions over a grid."""

import dataclasses
import functools as ft

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from ...arguments import NonNegativeFloat, OddWidth, PositiveInt, checked
from ...errors import InputError
from ..arrays import State, affine
from ..constraints import AbstractConstraint, Free
from ..domain import TokenDomain, grid_of
from .attention import AbstractAttention
from .grid import Dimension, check_axes, is_periodic, on_grid, shifted
from .operator import check_features
from .positions import Fredholm


class Statistics(eqx.Module):
    """A batch normalisation with fixed mean and variance."""

    mean: Float[Array, " features"]
    variance: Float[Array, " features"]
    eps: float = eqx.field(static=True, default=1e-5)

    def __call__(self, v: Float[Array, "..."]) -> Float[Array, "..."]:
        """`(v - mean) / sqrt(variance + eps)`."""
        mean, variance = lax.stop_gradient((self.mean, self.variance))
        return affine(affine(v, None, -mean), lax.rsqrt(variance + self.eps))


class DepthwiseProjection(eqx.Module):
    """A depthwise convolution over a grid and an affine map of each feature,

        v(x_i) = γ ⊙ S(Σ_k w_k ⊙ u(x_{s i} + k)) + β,   |k| ≤ r along each axis,

    with u = 0 beyond a boundary, and around a periodic domain. It maps n points along an axis
    to n / s. S is the identity or `Statistics`. Nothing is averaged over a batch."""

    weight: Float[Array, "... features"]
    gain: Float[Array, " features"]
    bias: Float[Array, " features"]
    statistics: Statistics | None
    stride: int = eqx.field(static=True)

    def __init__(self, features, width, stride, dimension, statistics, key):
        shape = (*(width,) * dimension, features)
        # Keeps the variance of features that are independent between points.
        self.weight = jax.random.normal(key, shape) / width ** (dimension / 2)
        self.gain = jnp.ones(features)
        self.bias = jnp.zeros(features)
        unit = Statistics(jnp.zeros(features), jnp.ones(features))
        self.statistics = unit if statistics else None
        self.stride = stride

    def __call__(self, u: Float[Array, "..."], *, periodic: bool) -> Float[Array, "..."]:
        """`[..., *grid, features]` to `[..., *coarser grid, features]`."""
        width = self.weight.shape[0]
        hops = (1.0,) * (self.weight.ndim - 1)
        neighbours = shifted(u, width, width // 2, hops, periodic=periodic, stride=self.stride)
        taps = self.weight.astype(u.dtype).reshape(-1, u.shape[-1])
        # Compilers fuse this sum; grouped convolutions are slow.
        v = ft.reduce(jnp.add, map(affine, neighbours, taps))
        if self.statistics is not None:
            v = self.statistics(v)
        return affine(v, self.gain, self.bias)


@checked
class ConvolutionalAttention(AbstractAttention):
    """Multi-head attention over a grid, integrated over a coarser grid Ω_x'. Queries, keys and
    values see the neighbourhood of their token:

        du/dt = Σ_h ∫_Ωx' γ_h(x, x'; u) V_h(x') dx' W^O_h,
        Q = W^Q * (c^Q ∗ N(u)) on Ω_x,   K, V = W^{K,V} * (c^{K,V} ∗ N(u)) on Ω_x',

    γ as in `Attention`, N the input normalisation and `c ∗` a depthwise convolution with gain
    and bias. Ω_x' is every s-th point along each axis, with the same quadrature weights. A
    prefix, such as a class token, skips the convolutions and belongs to both domains.
    Reference: Wu et al., arXiv 2103.15808.

    A gain and a bias replace the reference's batch normalisation, which would couple samples.
    `statistics=True` adds a fixed mean and variance, as checkpoints have them.

    **Arguments:**

    - `features`, `heads`: width of the state, and number of heads.
    - `width`: tokens along each axis of a convolution, odd.
    - `stride`: s, which must divide the points along each axis.
    - `dimension`: the dimension of the grid, 1 to 3.
    - `statistics`: whether S exists, see above.
    - `normalization`: N; `LayerNorm` or `RMSNorm` gives the pre-norm form.
    - `bias`: whether the linear maps have biases.
    - `output_bias`: whether the output has a bias. Default: `bias`.
    - `std`, `output_std`: standard deviation of the initial weights, and of the output map.

    **Raises:** `InputError` if the domain is not a grid, has weights for each sample, or the
    stride does not divide its sides.
    """

    query_convolution: DepthwiseProjection
    key_convolution: DepthwiseProjection
    value_convolution: DepthwiseProjection

    def __init__(
        self,
        features: PositiveInt,
        heads: PositiveInt,
        *,
        key: PRNGKeyArray,
        width: OddWidth = 3,
        stride: PositiveInt = 2,
        dimension: Dimension = 2,
        statistics: bool = False,
        normalization: AbstractConstraint = Free(),
        bias: bool = True,
        output_bias: bool | None = None,
        std: NonNegativeFloat = 0.02,
        output_std: NonNegativeFloat | None = None,
    ):
        maps_key, *keys = jax.random.split(key, 4)
        super().__init__(
            features,
            heads,
            key=maps_key,
            normalization=normalization,
            bias=bias,
            std=std,
            output_std=output_std,
            output_bias=output_bias,
        )
        self.query_convolution, self.key_convolution, self.value_convolution = (
            DepthwiseProjection(features, width, step, dimension, statistics, map_key)
            for step, map_key in zip((1, stride, stride), keys, strict=True)
        )

    def __call__(self, u: State, domain: TokenDomain) -> State:
        check_features(self, u, self.query.weight.shape[0])
        coarse = self.coarse_domain(domain)
        v = self.normalization.project(u)
        prefix = v[..., : domain.prefix, :]
        grid = on_grid(self, v[..., domain.prefix :, :], _without_weights(domain))

        def convolve(convolution: DepthwiseProjection) -> State:
            w = convolution(grid, periodic=is_periodic(self, domain))
            flat = w.reshape(*u.shape[:-2], -1, u.shape[-1])
            return jnp.concatenate([prefix, flat], axis=-2)

        heads = self.split_heads(
            self.query(convolve(self.query_convolution)),
            self.key(convolve(self.key_convolution)),
            self.value(convolve(self.value_convolution)),
        )
        return self.integral(heads, domain, coarse, Fredholm())

    def coarse_domain(self, domain: TokenDomain) -> TokenDomain:
        """Ω_x', the domain of keys and values."""
        stride = self.key_convolution.stride
        axes = self.key_convolution.weight.ndim - 1
        check_axes(self, axes, domain)
        grid = grid_of("ConvolutionalAttention", _without_weights(domain))
        points = np.arange(domain.prefix, domain.num_tokens).reshape(grid)
        points = points[(slice(None, None, stride),) * axes].ravel()
        indices = np.concatenate([np.arange(domain.prefix), points])
        if any(n % stride for n in grid):
            raise InputError(f"ConvolutionalAttention: {stride=} must divide each of {grid=}.")
        return dataclasses.replace(
            domain,
            points=domain.points[indices],
            weights=None if domain.weights is None else domain.weights[indices],
            grid=tuple(n // stride for n in grid),
            spacing=tuple(stride * step for step in domain.steps),
        )


def _without_weights(domain: TokenDomain) -> TokenDomain:
    """The grid without its prefix, and without weights that all samples share."""
    grid = domain.without_prefix
    shared = grid.weights is not None and grid.weights.ndim == 1
    return dataclasses.replace(grid, weights=None) if shared else grid
