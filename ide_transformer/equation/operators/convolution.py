"""Convolutions: integrals over a neighbourhood of each point of a grid."""

import functools as ft

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ...arguments import NonNegativeFloat, OddInt, PositiveFloat, PositiveInt, checked
from ...errors import InputError
from ..arrays import State, affine
from ..constraints import AbstractConstraint, Free
from ..domain import TokenDomain
from .feed_forward import Activation, gelu
from .grid import Dimension, check_axes, goes_around, on_grid, shifted
from .operator import AbstractOperator, check_features


def convolved(
    operator: object,
    v: State,
    weight: Float[Array, "..."],
    domain: TokenDomain,
    *,
    spacing: float | None = None,
    causal: bool = False,
) -> Float[Array, "*batch tokens out"]:
    """`Σ_k v(x + k) W_k`; `weight` is `[*widths, in, out]`, or `[*widths, 1, features]`."""
    check_axes(operator, weight.ndim - 2, domain)
    on = on_grid(operator, v, domain)
    around = goes_around(operator, domain)
    width = len(weight)
    steps = domain.steps if spacing is not None else (1.0,) * domain.dimension
    hops = tuple((spacing or 1.0) / step for step in steps)
    before = width - 1 if causal else width // 2
    if causal and around:
        raise InputError(
            f"{type(operator).__name__}: causal=True on a periodic domain, where what is "
            "before a point is also after it; take one with ends, or causal=False."
        )
    neighbours = [*shifted(on, width, before, hops, periodic=around, causal=causal)]
    taps = weight.reshape(-1, weight.shape[-1])
    if weight.shape[-2] < v.shape[-1]:
        rate = ft.reduce(jnp.add, map(affine, neighbours, taps.astype(v.dtype)))
    else:
        # One product: inside of a loop, convolutions of XLA take 15 times as long on a CPU.
        near = jnp.concatenate(neighbours, -1).astype(taps.dtype)
        rate = (near @ taps).astype(v.dtype)
    return rate.reshape(*v.shape[:-1], weight.shape[-1])


@checked
class Convolution(AbstractOperator):
    """A convolution over the tokens of a grid, an integral over a neighbourhood of each:

        du/dt = Σ_k N(u)(x + k ℓ) W_k + b,   |k| ≤ r along each axis,

    with u = 0 beyond a boundary, and around a periodic domain. Causal, of a text, it takes the
    token and the `width - 1` before it. By default ℓ is the distance of two points, so that
    the weights belong to the grid. With a `spacing` of its own it is the same operator on every
    grid: exact where x + k ℓ are points, and of fourth order where they are between points.

    **Arguments:**

    - `features`: width of the state.
    - `width`: tokens along each axis; `2 r + 1`, odd, unless it is causal.
    - `dimension`: of the tokens, 1 to 3.
    - `depthwise`: whether each feature has its own W_k, a number.
    - `causal`: whether it looks back only.
    - `spacing`: ℓ, a distance of the domain; `None` for that of two points.
    - `normalization`: N, applied to the input.
    - `bias`: whether there is b.
    - `std`: standard deviation of the initial W.

    **Raises:** `InputError` on a domain that is no grid, or has weights, and for a causal one
    around a periodic domain.
    """

    weight: Float[Array, "..."]
    bias: Float[Array, " features"] | None
    normalization: AbstractConstraint
    causal: bool = eqx.field(static=True)
    spacing: float | None = eqx.field(static=True)

    def __init__(
        self,
        features: PositiveInt,
        *,
        key: PRNGKeyArray,
        width: PositiveInt = 3,
        dimension: Dimension = 1,
        depthwise: bool = False,
        causal: bool = False,
        spacing: PositiveFloat | None = None,
        normalization: AbstractConstraint = Free(),
        bias: bool = True,
        std: NonNegativeFloat = 0.02,
    ):
        if not causal and width % 2 == 0:
            raise InputError(f"Convolution: width={width} must be odd.")
        if causal and dimension > 1:
            raise InputError(
                f"Convolution: causal=True, dimension={dimension}: planes have no order."
            )
        shape = (*(width,) * dimension, 1 if depthwise else features, features)
        self.weight = std * jax.random.normal(key, shape)
        self.bias = jnp.zeros(features) if bias else None
        self.normalization = normalization
        self.causal = causal
        self.spacing = spacing

    def __call__(self, u: State, domain: TokenDomain) -> State:
        check_features(self, u, self.weight.shape[-1])
        v = self.normalization.project(u)
        rate = convolved(self, v, self.weight, domain, spacing=self.spacing, causal=self.causal)
        return affine(rate, None, self.bias)


@checked
class ConvolutionalFeedForward(AbstractOperator):
    """A feed-forward that sees the neighbourhood of a token,

        du/dt = W2 σ(Σ_k W_k N(u)(x + k ℓ) + b1) + b2,   |k| ≤ r along each axis,

    or, gated, with hidden features `σ(Σ_k G_k N(u)(x + k ℓ)) ⊙ (Σ_k W_k N(u)(x + k ℓ) + b1)`,
    products of a function with its slopes among them, as in the terms `u u_x` of fluids. With
    an `outer_width` W2 is a convolution too. For the neighbours and ℓ see `Convolution`.

    **Arguments:**

    - `hidden`: width between the maps. Default: `features`.
    - `gated`: whether there is G.
    - `outer_width`: the points that W2 sees along each axis, odd; 1, the point itself, by
      default.
    - the others: see `Convolution` and `FeedForward`.

    **Raises:** `InputError` on a domain that is no grid, or has weights.
    """

    inner: Float[Array, "..."]
    inner_bias: Float[Array, " hidden"] | None
    gate: Float[Array, "..."] | None
    outer: Float[Array, "..."]
    outer_bias: Float[Array, " features"] | None
    normalization: AbstractConstraint
    activation: Activation = eqx.field(static=True)
    spacing: float | None = eqx.field(static=True)

    def __init__(
        self,
        features: PositiveInt,
        hidden: PositiveInt | None = None,
        *,
        key: PRNGKeyArray,
        width: OddInt = 3,
        dimension: Dimension = 1,
        gated: bool = False,
        outer_width: OddInt = 1,
        spacing: PositiveFloat | None = None,
        activation: Activation = gelu,
        normalization: AbstractConstraint = Free(),
        bias: bool = True,
        std: NonNegativeFloat = 0.02,
        output_std: NonNegativeFloat | None = None,
    ):
        hidden = hidden or features
        keys = jax.random.split(key, 3)
        shape = (*(width,) * dimension, features, hidden)
        self.inner = std * jax.random.normal(keys[0], shape)
        self.inner_bias = jnp.zeros(hidden) if bias else None
        self.gate = std * jax.random.normal(keys[1], shape) if gated else None
        output_std = std if output_std is None else output_std
        shape = (*(outer_width,) * dimension, hidden, features)
        self.outer = output_std * jax.random.normal(keys[2], shape)
        self.outer_bias = jnp.zeros(features) if bias else None
        self.normalization = normalization
        self.activation = activation
        self.spacing = spacing

    def __call__(self, u: State, domain: TokenDomain) -> State:
        check_features(self, u, self.inner.shape[-2])
        v = self.normalization.project(u)
        # The neighbours are gathered once for both.
        maps = [self.inner] if self.gate is None else [self.inner, self.gate]
        rates = convolved(self, v, jnp.concatenate(maps, -1), domain, spacing=self.spacing)
        inner, *gate = jnp.split(rates, len(maps), axis=-1)
        hidden = affine(inner, None, self.inner_bias)
        hidden = self.activation(*gate) * hidden if gate else self.activation(hidden)
        rate = convolved(self, hidden, self.outer, domain, spacing=self.spacing)
        return affine(rate, None, self.outer_bias)
