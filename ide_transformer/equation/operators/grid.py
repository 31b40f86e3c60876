"""Operators on the points of a grid: convolutions, diffusion and transport."""

import functools as ft
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Annotated, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Complex, Float, PRNGKeyArray
from pydantic import Field

from ...arguments import NonNegativeFloat, PositiveFloat, PositiveInt
from ...errors import InputError
from ..arrays import State, affine, nonnegative_array
from ..constraints import AbstractConstraint, Free
from ..domain import TokenDomain, grid_of
from ..rules import lagrange
from .feed_forward import Activation, Linear, gelu
from .operator import AbstractLinearOperator, AbstractOperator, Spectral, check_features


def on_grid(operator: object, u: State, domain: TokenDomain) -> Float[Array, "..."]:
    """The state with an axis for each axis of the grid, `[..., *grid, features]`."""
    grid = grid_of(type(operator).__name__, domain)
    return u.reshape(*u.shape[:-2], *grid, u.shape[-1])


def goes_around(operator: object, domain: TokenDomain) -> bool:
    """Whether a grid is one of a torus, without boundaries."""
    if domain.period is not None and None in domain.period:
        raise InputError(
            f"{type(operator).__name__} is for grids with boundaries along all axes or along "
            f"none, but period={domain.period}; give dataclasses.replace(domain, period=None)."
        )
    return domain.period is not None


def check_axes(operator: object, axes: int, domain: TokenDomain, *, periodic=False) -> None:
    """Refuses a domain of another dimension than an operator has values for, and one with
    boundaries where that expands in waves."""
    name = type(operator).__name__
    if periodic and not goes_around(operator, domain):
        raise InputError(
            f"{name} expands in waves and needs a periodic domain, as TokenDomain.periodic "
            "makes it."
        )
    if axes != domain.dimension:
        raise InputError(
            f"{name} is for {axes} dimensions of tokens, but this TokenDomain has "
            f"{domain.dimension}."
        )


def _grid_axes(domain: TokenDomain) -> tuple[int, ...]:
    """The axes of the grid in what `on_grid` gives, from the end."""
    return tuple(range(-1 - domain.dimension, -1))


def shifted(
    v: Float[Array, "..."],
    width: int,
    before: int,
    hops: tuple[float, ...],
    *,
    periodic: bool,
    stride: int = 1,
) -> Iterator[Float[Array, "..."]]:
    """The states of the neighbours of every `stride`-th point of a grid, `[..., *grid,
    features]`: of all `width` of them along each axis, from that so many `before` to those
    after, the last axis first. From one to the next it is so many points of the grid, a
    `hop` for each axis; between points they are those of the cubic through the nearest
    four. Beyond a boundary it is 0."""
    grid = v.shape[-1 - len(hops) : -1]
    stencils = [[_stencil((k - before) * hop) for k in range(width)] for hop in hops]
    first = [-min(min(stencil) for stencil in along) for along in stencils]
    last = [max(max(stencil) for stencil in along) for along in stencils]
    padding = [(0, 0)] * (v.ndim - 1 - len(hops))
    padding += [*zip(first, np.maximum(last, 0), strict=True), (0, 0)]
    wide = jnp.pad(v, padding, mode="wrap" if periodic else "constant")
    for neighbour in itertools.product(*stencils):
        terms = []
        for places in itertools.product(*neighbour):
            ends = zip(places, first, grid, strict=True)
            part = [slice(a + k, a + k + n, stride) for k, a, n in ends]
            factor = math.prod(x[k] for x, k in zip(neighbour, places, strict=True))
            there = wide[(..., *part, slice(None))]
            terms.append(there if factor == 1 else factor * there)
        yield ft.reduce(jnp.add, terms)


def _stencil(distance: float) -> dict[int, float]:
    """The points by whose values a function is interpolated so many points away, and their
    factors."""
    nearest = round(distance)
    if abs(distance - nearest) < 1e-5:
        return {nearest: 1.0}
    points = math.floor(distance) + np.arange(-1, 3)
    factors = lagrange(points.astype(float), distance)
    return dict(zip(points.tolist(), factors.tolist(), strict=True))


def convolved(
    operator: object,
    v: State,
    weight: Float[Array, "..."],
    domain: TokenDomain,
    *,
    spacing: float | None = None,
    causal: bool = False,
) -> Float[Array, "*batch tokens out"]:
    """`Σ_k v(x + k) W_k`, see `Convolution`; `weight` is `[*widths, in, out]`, or `[*widths, 1,
    features]` where each feature has a number of its own."""
    check_axes(operator, weight.ndim - 2, domain)
    on, width, around = on_grid(operator, v, domain), len(weight), goes_around(operator, domain)
    steps = domain.steps if spacing is not None else (1.0,) * domain.dimension
    hops = tuple((spacing or 1.0) / step for step in steps)
    before = width - 1 if causal else width // 2
    neighbours = [*shifted(on, width, before, hops, periodic=around)]
    weight = weight.astype(v.dtype)
    taps = weight.reshape(-1, weight.shape[-1])
    if weight.shape[-2] < v.shape[-1]:
        rate = ft.reduce(jnp.add, map(affine, neighbours, taps))
    else:
        # One product: inside of a loop, convolutions of XLA take 15 times as long on a CPU.
        rate = jnp.concatenate(neighbours, -1) @ taps
    return rate.reshape(*v.shape[:-1], weight.shape[-1])


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

    **Raises:** `InputError` on a domain that is no grid, or has weights.
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
        dimension: Annotated[int, Field(ge=1, le=3)] = 1,
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
        self.causal, self.spacing = causal, spacing

    def __call__(self, u: State, domain: TokenDomain) -> State:
        check_features(self, u, self.weight.shape[-1])
        v = self.normalization.project(u)
        spacing, causal = self.spacing, self.causal
        rate = convolved(self, v, self.weight, domain, spacing=spacing, causal=causal)
        return affine(rate, None, self.bias)


class ConvolutionalFeedForward(AbstractOperator):
    """A feed-forward that sees the neighbourhood of a token,

        du/dt = W2 σ(Σ_k W_k N(u)(x + k ℓ) + b1) + b2,   |k| ≤ r along each axis,

    or, gated, with hidden features `σ(Σ_k G_k N(u)(x + k ℓ)) ⊙ (Σ_k W_k N(u)(x + k ℓ) + b1)`,
    products of a function with its slopes among them, as in the terms `u u_x` of fluids. For
    the neighbours and ℓ see `Convolution`.

    **Arguments:**

    - `hidden`: width between the maps. Default: `features`.
    - `gated`: whether there is G.
    - the others: see `Convolution` and `FeedForward`.

    **Raises:** `InputError` on a domain that is no grid, or has weights.
    """

    inner: Float[Array, "..."]
    inner_bias: Float[Array, " hidden"] | None
    gate: Float[Array, "..."] | None
    outer: Linear
    normalization: AbstractConstraint
    activation: Activation = eqx.field(static=True)
    spacing: float | None = eqx.field(static=True)

    def __init__(
        self,
        features: PositiveInt,
        hidden: PositiveInt | None = None,
        *,
        key: PRNGKeyArray,
        width: PositiveInt = 3,
        dimension: Annotated[int, Field(ge=1, le=3)] = 1,
        gated: bool = False,
        spacing: PositiveFloat | None = None,
        activation: Activation = gelu,
        normalization: AbstractConstraint = Free(),
        bias: bool = True,
        std: NonNegativeFloat = 0.02,
        output_std: NonNegativeFloat | None = None,
    ):
        if width % 2 == 0:
            raise InputError(f"ConvolutionalFeedForward: width={width} must be odd.")
        hidden, keys = hidden or features, jax.random.split(key, 3)
        shape = (*(width,) * dimension, features, hidden)
        self.inner = std * jax.random.normal(keys[0], shape)
        self.inner_bias = jnp.zeros(hidden) if bias else None
        self.gate = std * jax.random.normal(keys[1], shape) if gated else None
        output_std = std if output_std is None else output_std
        self.outer = Linear(hidden, features, bias=bias, std=output_std, key=keys[2])
        self.normalization, self.activation = normalization, activation
        self.spacing = spacing

    def __call__(self, u: State, domain: TokenDomain) -> State:
        check_features(self, u, self.inner.shape[-2])
        v = self.normalization.project(u)
        # The neighbours are gathered once for both.
        maps = [self.inner] if self.gate is None else [self.inner, self.gate]
        rates = convolved(self, v, jnp.concatenate(maps, -1), domain, spacing=self.spacing)
        inner, *gate = jnp.split(rates, len(maps), axis=-1)
        hidden = affine(inner, None, self.inner_bias)
        if gate:
            return self.outer(self.activation(*gate) * hidden)
        return self.outer(self.activation(hidden))


class FourierIntegral(AbstractOperator):
    """An integral over tokens whose kernel is a function of the difference, given by its lowest
    waves, the layer of a Fourier neural operator:

        du/dt = σ(∫_Ωx κ(x - x') N(u)(x') dx' + ∫_Ωy W N(u) dy + b),
        κ(x) = Σ_|k|<modes R_k exp(2πi k·x / L),   R_{-k} the conjugate of R_k,

    over a periodic domain of measure 1. It is the same function on every grid that can tell
    the waves apart. At other points the integral has their weights, and the sums over points
    and waves are made as they stand. Source: Li et al., "Fourier neural operator", 2021,
    arXiv 2010.08895.

    **Arguments:**

    - `features`: width of the state.
    - `modes`: waves along each axis, the constant one among them.
    - `dimension`: of the tokens.
    - `activation`, `normalization`: σ and N.
    - `bias`: whether there is b.
    - `std`, `output_std`: standard deviation of the initial W, and of R (default: the same).

    **Raises:** `InputError` on a domain that is not periodic, has a class token, or fewer than
    `2 modes - 1` points along an axis.
    """

    weight: Float[Array, "waves two features_in features_out"]
    linear: Linear
    normalization: AbstractConstraint
    modes: int = eqx.field(static=True)
    dimension: int = eqx.field(static=True)
    activation: Activation = eqx.field(static=True)

    def __init__(
        self,
        features: PositiveInt,
        *,
        key: PRNGKeyArray,
        modes: PositiveInt = 8,
        dimension: PositiveInt = 1,
        activation: Activation = gelu,
        normalization: AbstractConstraint = Free(),
        bias: bool = True,
        std: NonNegativeFloat = 0.02,
        output_std: NonNegativeFloat | None = None,
    ):
        keys = jax.random.split(key)
        self.modes, self.dimension = modes, dimension
        shape = (len(self.waves), 2, features, features)
        output_std = std if output_std is None else output_std
        self.weight = output_std * jax.random.normal(keys[0], shape)
        self.linear = Linear(features, features, bias=bias, std=std, key=keys[1])
        self.normalization = normalization
        self.activation = activation

    @property
    def waves(self) -> np.ndarray:
        """`[waves, dimension]`: the k of which the kernel has an R_k, one of k and -k."""
        signed, last = range(1 - self.modes, self.modes), range(self.modes)
        return np.array(list(itertools.product(*[signed] * (self.dimension - 1), last)))

    def __call__(self, u: State, domain: TokenDomain) -> State:
        check_features(self, u, self.linear.weight.shape[0])
        check_axes(self, self.dimension, domain, periodic=True)
        least, v = 2 * self.modes - 1, self.normalization.project(u)
        equally_spaced = domain.grid is not None and domain.weights is None
        enough = not domain.prefix and domain.num_tokens >= least**self.dimension
        if equally_spaced:
            enough = min(domain.grid or ()) >= least
        if not enough:
            raise InputError(
                f"FourierIntegral: {domain.num_tokens} points cannot tell {self.modes} waves "
                f"apart; give at least {least} points along each axis, and no class token."
            )
        integral = (self._on_grid if equally_spaced else self._at_points)(v, domain)
        return self.activation(integral.astype(u.dtype) + self.linear(v))

    def _on_grid(self, u: State, domain: TokenDomain) -> State:
        v, axes = on_grid(self, u, domain), _grid_axes(domain)
        spectrum = jnp.fft.rfftn(v, axes=axes, norm="forward")
        at = (..., *self.waves.T, slice(None))
        spectrum = jnp.zeros_like(spectrum).at[at].set(self._times_kernel(spectrum[at]))
        grid = [v.shape[axis] for axis in axes]
        return jnp.fft.irfftn(spectrum, s=grid, axes=axes, norm="forward").reshape(u.shape)

    def _at_points(self, v: State, domain: TokenDomain) -> State:
        length = jnp.asarray(domain.period)[None]
        angles = 2 * jnp.pi * domain.points / length @ self.waves.T
        cos, sin = (wave(angles).astype(v.dtype) for wave in (jnp.cos, jnp.sin))
        weighted = jnp.einsum("...x,...xi->...xi", domain.shares.astype(v.dtype), v)
        # Real products: those of complex numbers cannot be kept for a gradient.
        mixed = self._times_kernel(lax.complex(cos.T @ weighted, -sin.T @ weighted))
        # A wave k of which -k is none stands for both.
        both = jnp.asarray(np.where(self.waves[:, -1] > 0, 2, 1), v.dtype)[None]
        return (both * cos) @ mixed.real - (both * sin) @ mixed.imag

    def _times_kernel(self, spectrum: Complex[Array, "..."]) -> Complex[Array, "..."]:
        """`[..., waves, features]`, each wave times its R."""
        weight = self.weight.astype(spectrum.real.dtype)
        r = lax.complex(weight[:, 0], weight[:, 1])
        return jnp.einsum("...ki,kio->...ko", spectrum, r)


def _wave_numbers(operator: object, domain: TokenDomain) -> tuple[np.ndarray, ...]:
    """Along each axis those of the eigenfunctions of the Laplacian: `π j / L` of cosines, whose
    slope is zero at the boundaries, and `2π j / L` of the waves around a periodic domain."""
    assert domain.grid is not None
    around = goes_around(operator, domain)
    along = (
        2 * np.pi * np.fft.fftfreq(n, step) if around else np.pi * np.arange(n) / (n * step)
        for n, step in zip(domain.grid, domain.steps, strict=True)
    )
    return tuple(np.meshgrid(*along, indexing="ij"))


def _times_waves(
    v: Float[Array, "..."], factor: Array, domain: TokenDomain
) -> Float[Array, "..."]:
    """A function on a periodic grid, each wave of it times a factor, `[*grid]`."""
    axes = _grid_axes(domain)
    factor = jnp.broadcast_to(factor[..., None], v.shape)
    return jnp.fft.ifftn(factor * jnp.fft.fftn(v, axes=axes), axes=axes).real.astype(v.dtype)


class Diffusion(AbstractLinearOperator):
    """Diffusion over tokens, by the eigenfunctions of the Laplacian on the grid,

        u_t = κ Δ_x u,   flow(u, h) = C⁻¹ exp(-κ h |k|²) C u.

    C is the cosine transform, with no flux through the ends and k = π j / L, or on a periodic
    domain the Fourier transform, with k = 2π j / L; L is the length of an axis, N for N text
    tokens. It sees all tokens, so it is for encoders.

    **Arguments:**

    - `rate`: κ ≥ 0, a number, in squared distances of the domain per layer.

    **Raises:** `InputError` on a domain whose points are not equally spaced, or have weights.
    """

    rate: Float[Array, ""] = eqx.field(converter=nonnegative_array)

    dissipative: ClassVar[bool] = True

    def apply(self, function: Spectral, u: State, domain: TokenDomain) -> State:
        v = on_grid(self, u, domain)
        if self.rate.shape:
            raise InputError(f"Diffusion.rate has shape {self.rate.shape}; give one number.")
        laplacian = -sum(wave**2 for wave in _wave_numbers(self, domain))
        factor = function(self.rate.astype(u.dtype) * jnp.asarray(laplacian, u.dtype))
        if domain.period is not None:
            return _times_waves(v, factor, domain).reshape(u.shape)
        for axis in _grid_axes(domain):
            v = jax.scipy.fft.dct(v, axis=axis, norm="ortho")
        v = v * jnp.broadcast_to(factor[..., None], v.shape)
        for axis in _grid_axes(domain):
            v = jax.scipy.fft.idct(v, axis=axis, norm="ortho")
        return v.reshape(u.shape).astype(u.dtype)


class Advection(AbstractLinearOperator):
    """Transport along the tokens of a periodic domain at a constant velocity, by waves:

        u_t = -c·∇_x u,   flow(u, h)(x) = u(x - h c).

    **Arguments:**

    - `velocity`: c, a number for each axis, in distances of the domain per layer.

    **Raises:** `InputError` on a domain that is no periodic grid of equal weights.
    """

    velocity: Float[Array, " dimension"]

    dissipative: ClassVar[bool] = False

    def apply(self, function: Spectral, u: State, domain: TokenDomain) -> State:
        check_axes(self, len(self.velocity), domain, periodic=True)
        v = on_grid(self, u, domain)
        rate = jnp.zeros(domain.grid, jnp.result_type(u.dtype, jnp.complex64))
        for c, waves, axis in zip(
            self.velocity, _wave_numbers(self, domain), _grid_axes(domain), strict=True
        ):
            # Of an even number of points the last wave has no derivative that is real.
            last = np.isclose(waves, waves.min()) & (v.shape[axis] % 2 == 0)
            slope = jnp.asarray(np.where(last, 0, waves), u.dtype)
            rate = rate - 1j * c.astype(u.dtype) * slope
        return _times_waves(v, function(rate), domain).reshape(u.shape)


def _differences(
    operator: object, u: State, domain: TokenDomain, difference: Callable[..., Array]
) -> State:
    """The sum over axes of the grid of `difference(axis, step, before, v, after)`, v the state,
    between its neighbours along the axis; beyond a boundary it goes on as it is there."""
    v = on_grid(operator, u, domain)
    mode = "wrap" if goes_around(operator, domain) else "edge"
    total = jnp.zeros_like(v)
    for number, (axis, step) in enumerate(zip(_grid_axes(domain), domain.steps, strict=True)):
        padding = [(0, 0)] * v.ndim
        padding[axis] = (1, 1)
        wide, points = jnp.pad(v, padding, mode=mode), np.arange(v.shape[axis])
        before, after = (jnp.take(wide, points + shift, axis) for shift in (0, 2))
        total = total + difference(number, step, before, v, after)
    return total.reshape(u.shape)


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
