"""A strided depthwise convolution over a grid, which makes queries, keys or values local."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from ...errors import InputError
from ..affine import affine


class Statistics(eqx.Module):
    """The mean and the variance of each feature that batch normalisation collected in a
    training elsewhere. Here they are constants: they have no gradient.

    - `mean`, `variance`: `[features]`.
    - `eps`: added to the variance.
    """

    mean: Float[Array, " features"]
    variance: Float[Array, " features"]
    eps: float = eqx.field(static=True, default=1e-5)

    def __call__(self, v: Float[Array, "..."]) -> Float[Array, "..."]:
        """`(v - mean) / sqrt(variance + eps)`."""
        mean, variance = lax.stop_gradient((self.mean, self.variance))
        return affine(affine(v, None, -mean), lax.rsqrt(variance + self.eps), None)


class DepthwiseProjection(eqx.Module):
    """A depthwise convolution over the points of a grid and an affine map of each feature,

        v(x_i) = γ ⊙ S(Σ_k w_k ⊙ u(x_{s i} + k)) + β,   |k| ≤ r along each axis,

    with u = 0 beyond a boundary, and around a periodic domain: from n points along an axis to
    n / s of them. S is the identity, or `Statistics` that are given. Nothing is averaged over
    a batch, in training either, so v is a function of u alone.

    **Arguments:**

    - `features`: width of the state.
    - `width`: `2 r + 1`, odd, in points.
    - `stride`: s.
    - `dimension`: of the grid.
    - `statistics`: whether S has some; they start at mean 0 and variance 1.

    **Raises:** `InputError` for an even width, which has no middle.
    """

    weight: Float[Array, "... features"]
    gain: Float[Array, " features"]
    bias: Float[Array, " features"]
    statistics: Statistics | None
    stride: int = eqx.field(static=True)

    def __init__(
        self,
        features: int,
        *,
        width: int,
        stride: int,
        dimension: int,
        statistics: bool,
        key: PRNGKeyArray,
    ):
        if width % 2 == 0:
            raise InputError(
                f"ConvolutionalAttention(width={width}) has no token in its middle; choose an "
                "odd width."
            )
        shape = (*(width,) * dimension, features)
        # Features that are independent from point to point keep their size.
        self.weight = jax.random.normal(key, shape) / width ** (dimension / 2)
        self.gain, self.bias = jnp.ones(features), jnp.zeros(features)
        self.statistics = None
        if statistics:
            self.statistics = Statistics(jnp.zeros(features), jnp.ones(features))
        self.stride = stride

    def __call__(self, u: Float[Array, "..."], *, periodic: bool) -> Float[Array, "..."]:
        """`[..., *grid, features]` to `[..., *coarser grid, features]`."""
        width, axes = self.weight.shape[0], self.weight.ndim - 1
        grid, reach = u.shape[-1 - axes : -1], width // 2
        padding = [(0, 0)] * (u.ndim - axes - 1) + [(reach, reach)] * axes + [(0, 0)]
        wide = jnp.pad(u, padding, mode="wrap" if periodic else "constant")
        weight = self.weight.astype(u.dtype)
        # A sum of shifted states: compilers fuse it, and have slow code for grouped kernels.
        v = jnp.zeros((), u.dtype)
        for taps in itertools.product(range(width), repeat=axes):
            part = [slice(k, k + n, self.stride) for k, n in zip(taps, grid, strict=True)]
            v = v + affine(wide[(..., *part, slice(None))], weight[taps], None)
        if self.statistics is not None:
            v = self.statistics(v)
        return affine(v, self.gain, self.bias)
