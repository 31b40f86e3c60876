"""A differential operator over a grid, by differences of neighbours."""

import math
from typing import Annotated

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ...arguments import (
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    at_least,
    at_most,
    checked,
)
from ..arrays import State, affine
from ..constraints import AbstractConstraint, Free
from ..domain import TokenDomain
from ..rules import lagrange
from .feed_forward import product
from .grid import Dimension, check_axes, goes_around, grid_axes, on_grid
from .operator import AbstractOperator, check_features


# Points of a difference, and points at an end that continue a function beyond it.
_STENCIL = 5
_END = 6

# `[k - 1, points]`: the k-th derivative at 0 of the polynomial through values at -2 to 2.
_POWERS = np.vander(np.arange(_STENCIL) - _STENCIL // 2, increasing=True)
_FACTORIALS = [math.factorial(k) for k in range(_STENCIL)]
_DIFFERENCES = np.linalg.inv(_POWERS / _FACTORIALS)[1:]


@checked
class DifferentialOperator(AbstractOperator):
    """A linear differential operator with learned coefficients,

        du/dt = N(u) W_0 + Σ_axes Σ_k ℓᵏ/k! ∂ᵏN(u)/∂xᵏ W_k + b,   1 ≤ k ≤ order ≤ 4,

    by differences over five points, accurate to order 4 for k ≤ 2 and to order 2 for k ≥ 3, so
    the weights are one operator on every grid that resolves the function. Beyond a boundary the
    polynomial through the next six points continues it. The W_k are moments of a kernel of
    length ℓ: on a grid of spacing ℓ the sum is a convolution of five points.

    **Arguments:**

    - `features`: width of the state.
    - `spacing`: ℓ, a distance of the domain; about the spacing in training.
    - `order`: of the highest derivative.
    - `dimension`: of the tokens, 1 to 3; there are no mixed derivatives.
    - `normalization`: N.
    - `bias`: whether b exists.
    - `std`: standard deviation of the initial W.

    **Raises:** `InputError` if the domain is no grid or has weights.
    """

    value: Float[Array, "features features"]
    slopes: Float[Array, "dimension order features features"]
    bias: Float[Array, " features"] | None
    normalization: AbstractConstraint
    spacing: float = eqx.field(static=True)

    def __init__(
        self,
        features: PositiveInt,
        spacing: PositiveFloat,
        *,
        key: PRNGKeyArray,
        order: Annotated[int, at_least(1), at_most(4)] = 4,
        dimension: Dimension = 1,
        normalization: AbstractConstraint = Free(),
        bias: bool = True,
        std: NonNegativeFloat = 0.02,
    ):
        value_key, slopes_key = jax.random.split(key)
        self.value = std * jax.random.normal(value_key, (features, features))
        shape = (dimension, order, features, features)
        self.slopes = std * jax.random.normal(slopes_key, shape)
        self.bias = jnp.zeros(features) if bias else None
        self.normalization = normalization
        self.spacing = spacing

    def __call__(self, u: State, domain: TokenDomain) -> State:
        check_features(self, u, len(self.value))
        check_axes(self, len(self.slopes), domain)
        v = on_grid(self, self.normalization.project(u), domain)
        around = goes_around(self, domain)
        rate = product(v, self.value)
        orders = np.arange(1, self.slopes.shape[1] + 1)
        axes = zip(grid_axes(domain), domain.steps, self.slopes, strict=True)
        for axis, step, slopes in axes:
            # One product for the differences and their coefficients.
            scale = (self.spacing / step) ** orders / [math.factorial(k) for k in orders]
            factors = jnp.asarray(scale[:, None] * _DIFFERENCES[: len(orders)], slopes.dtype)
            taps = jnp.einsum("kp,kio->pio", factors, slopes)
            near = jnp.concatenate(_neighbours(v, axis, around), -1)
            rate = rate + product(near, taps.reshape(-1, taps.shape[-1]))
        return affine(rate.reshape(u.shape), None, self.bias)


def _neighbours(v: Array, axis: int, around: bool) -> list[Array]:
    """The values at two points before each point of an axis, to two points after it."""
    v = jnp.moveaxis(v, axis, 0)
    beyond = _STENCIL // 2
    if around:
        wide = v[np.arange(-beyond, len(v) + beyond) % len(v)]
    else:
        end = np.arange(min(_END, len(v)), dtype=float)
        factors = jnp.asarray([lagrange(end, -float(k)) for k in range(beyond, 0, -1)], v.dtype)
        first = jnp.tensordot(factors, v[: len(end)], 1)
        last = jnp.tensordot(factors[::-1], v[::-1][: len(end)], 1)
        wide = jnp.concatenate([first, v, last])
    return [jnp.moveaxis(wide[k : k + len(v)], 0, axis) for k in range(_STENCIL)]
