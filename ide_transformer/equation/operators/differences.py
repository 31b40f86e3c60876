"""Derivatives over the points of a grid by differences of neighbours."""

import math
from collections.abc import Callable
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
from ..arrays import State, affine, nonnegative_array
from ..constraints import AbstractConstraint, Free
from ..domain import TokenDomain
from ..rules import lagrange
from .feed_forward import product
from .grid import Dimension, check_axes, goes_around, grid_axes, on_grid
from .operator import AbstractOperator, check_features


# Points of a difference, and those at an end from which functions are continued beyond it.
_STENCIL = 5
_END = 6

# `[k - 1, points]`: the factors of values at -2 to 2 in the k-th derivative at 0 of the
# polynomial through them.
_POWERS = np.vander(np.arange(_STENCIL) - _STENCIL // 2, increasing=True)
_FACTORIALS = [math.factorial(k) for k in range(_STENCIL)]
_DIFFERENCES = np.linalg.inv(_POWERS / _FACTORIALS)[1:]


def _differences(
    operator: object, u: State, domain: TokenDomain, difference: Callable[..., Array]
) -> State:
    """The sum over axes of `difference(axis, step, before, v, after)`, v the state."""
    v = on_grid(operator, u, domain)
    mode = "wrap" if goes_around(operator, domain) else "edge"
    total = jnp.zeros_like(v)
    for number, (axis, step) in enumerate(zip(grid_axes(domain), domain.steps, strict=True)):
        padding = [(0, 0)] * v.ndim
        padding[axis] = (1, 1)
        wide = jnp.pad(v, padding, mode=mode)
        points = np.arange(v.shape[axis])
        before = jnp.take(wide, points, axis)
        after = jnp.take(wide, points + 2, axis)
        total = total + difference(number, step, before, v, after)
    return total.reshape(u.shape)


@checked
class DifferenceDiffusion(AbstractOperator):
    """Diffusion over tokens by central differences, of second order,

        du/dt = Σ_axes κ (u(x + h) - 2 u(x) + u(x - h)) / h²,

    with no flux through the ends, or on a periodic domain around it. `Diffusion` has its exact
    flow.

    **Arguments:**

    - `rate`: κ ≥ 0, a number or `[features]`, in squared distances of the domain per layer.

    **Raises:** `InputError` on a domain whose points are not equally spaced, or have weights.
    """

    rate: Float[Array, "..."] = eqx.field(converter=nonnegative_array)

    def __call__(self, u: State, domain: TokenDomain) -> State:

        def second(axis, step, before, v, after):
            return (before - 2 * v + after) / step**2

        return affine(_differences(self, u, domain, second), self.rate)


@checked
class DifferenceAdvection(AbstractOperator):
    """Transport along the tokens by differences against the wind, of first order, which is
    stable where `Σ_axes |c| / h` times the step is at most 1,

        du/dt = -Σ_axes c (u(x) - u(x - h)) / h   for c > 0,

    and the other neighbour for c < 0, so that it is none for a causal model. Beyond a boundary
    u goes on as it is there. `Advection` has the exact flow on a periodic domain.

    **Arguments:**

    - `velocity`: c, a number for each axis, in distances of the domain per layer.

    **Raises:** `InputError` on a domain whose points are not equally spaced, or have weights.
    """

    velocity: Float[Array, " dimension"]

    def __call__(self, u: State, domain: TokenDomain) -> State:
        check_axes(self, len(self.velocity), domain)

        def upwind(axis, step, before, v, after):
            c = self.velocity[axis].astype(u.dtype)
            return -c / step * jnp.where(c > 0, v - before, after - v)

        return _differences(self, u, domain, upwind)


@checked
class DifferentialOperator(AbstractOperator):
    """A linear differential operator with learned coefficients,

        du/dt = N(u) W_0 + Σ_axes Σ_k ℓᵏ/k! ∂ᵏN(u)/∂xᵏ W_k + b,   1 ≤ k ≤ order ≤ 4,

    in differences over five points, of fourth order of accuracy where k ≤ 2 and of second
    where k ≥ 3, so that the weights are the same operator on every grid that resolves the
    function. Beyond a boundary it is continued by the polynomial through the six points next
    to it, which keeps these orders. The W_k are the moments of a kernel of the length ℓ: on a
    grid of that spacing the sum is a convolution of five points.

    **Arguments:**

    - `features`: width of the state.
    - `spacing`: ℓ, a distance of the domain; about that of the points in training.
    - `order`: of the highest derivative.
    - `dimension`: of the tokens, 1 to 3; there are no mixed derivatives.
    - `normalization`: N, applied to the input.
    - `bias`: whether there is b.
    - `std`: standard deviation of the initial W.

    **Raises:** `InputError` on a domain that is no grid, or has weights.
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
            # Differences of the neighbours, and their coefficients, are one product.
            scale = (self.spacing / step) ** orders / [math.factorial(k) for k in orders]
            factors = jnp.asarray(scale[:, None] * _DIFFERENCES[: len(orders)], slopes.dtype)
            taps = jnp.einsum("kp,kio->pio", factors, slopes)
            near = jnp.concatenate(_neighbours(v, axis, around), -1)
            rate = rate + product(near, taps.reshape(-1, taps.shape[-1]))
        return affine(rate.reshape(u.shape), None, self.bias)


def _neighbours(v: Array, axis: int, around: bool) -> list[Array]:
    """The values two points before each point of an axis, to two points after it."""
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
