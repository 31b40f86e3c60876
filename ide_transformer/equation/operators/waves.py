"""Operators that act on waves over a grid: a Fourier layer and diffusion."""

import itertools
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Complex, Float, PRNGKeyArray

from ...arguments import NonNegativeFloat, PositiveInt, checked
from ...errors import InputError
from ..arrays import State, nonnegative_array
from ..constraints import AbstractConstraint, Free
from ..domain import TokenDomain
from .feed_forward import Activation, Linear, gelu
from .grid import check_axes, grid_axes, is_periodic, on_grid
from .operator import AbstractLinearOperator, AbstractOperator, Spectral, check_features


@checked
class FourierIntegral(AbstractOperator):
    """An integral over tokens with a kernel of `x - x'` made of few waves, the layer of a
    Fourier neural operator:

        du/dt = σ(∫_Ωx κ(x - x') N(u)(x') dx' + ∫_Ωy W N(u) dy + b),
        κ(x) = Σ_|k|<modes R_k exp(2πi k·x / L),   R_{-k} the conjugate of R_k,

    over a periodic domain of measure 1. On all grids that resolve the waves it is one operator.
    At scattered points it is a dense sum with their weights. Source: Li et al., arXiv
    2010.08895.

    **Arguments:**

    - `features`: width of the state.
    - `modes`: waves along each axis, including the constant.
    - `dimension`: the dimension of the points.
    - `activation`: σ.
    - `normalization`, `bias`: N, and whether b exists.
    - `std`, `output_std`: standard deviation of the initial W, and of R.

    **Raises:** `InputError` if the domain is not periodic, has a class token, or fewer than
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
        self.modes = modes
        self.dimension = dimension
        shape = (len(self.waves), 2, features, features)
        output_std = std if output_std is None else output_std
        self.weight = output_std * jax.random.normal(keys[0], shape)
        self.linear = Linear(features, features, bias=bias, std=std, key=keys[1])
        self.normalization = normalization
        self.activation = activation

    @property
    def waves(self) -> np.ndarray:
        """The wave vectors k that have an R_k, `[waves, dimension]`: one of k and -k."""
        along = [range(1 - self.modes, self.modes)] * (self.dimension - 1)
        return np.array(list(itertools.product(*along, range(self.modes))))

    def __call__(self, u: State, domain: TokenDomain) -> State:
        check_features(self, u, self.linear.weight.shape[0])
        check_axes(self, self.dimension, domain, periodic=True)
        v = self.normalization.project(u)
        least = 2 * self.modes - 1
        equally_spaced = domain.grid is not None and domain.weights is None
        enough = domain.num_tokens >= least**self.dimension
        if equally_spaced:
            enough = min(domain.grid or ()) >= least
        if not enough or domain.prefix:
            raise InputError(
                f"FourierIntegral: {domain.num_tokens} points cannot resolve {self.modes} "
                f"waves; pass at least {least} points along each axis, and no class token."
            )
        if equally_spaced:
            grid = on_grid(self, v, domain)
            axes = grid_axes(domain)
            spectrum = jnp.fft.rfftn(grid, axes=axes, norm="forward")
            at = (..., *self.waves.T, slice(None))
            spectrum = jnp.zeros_like(spectrum).at[at].set(self._times_kernel(spectrum[at]))
            integral = jnp.fft.irfftn(spectrum, s=domain.grid, axes=axes, norm="forward")
            integral = integral.reshape(v.shape)
        else:
            length = jnp.asarray(domain.period)[None]
            angles = 2 * jnp.pi * domain.points / length @ self.waves.T
            cos = jnp.cos(angles).astype(v.dtype)
            sin = jnp.sin(angles).astype(v.dtype)
            weighted = jnp.einsum("...x,...xi->...xi", domain.shares.astype(v.dtype), v)
            # Real products, since gradient modes do not store complex ones.
            mixed = self._times_kernel(lax.complex(cos.T @ weighted, -sin.T @ weighted))
            # A wave k without -k counts for both.
            counts = jnp.asarray(np.where(self.waves[:, -1] > 0, 2, 1), v.dtype)[None]
            integral = (counts * cos) @ mixed.real - (counts * sin) @ mixed.imag
        return self.activation(integral.astype(u.dtype) + self.linear(v))

    def _times_kernel(self, spectrum: Complex[Array, "..."]) -> Complex[Array, "..."]:
        weight = self.weight.astype(spectrum.real.dtype)
        r = lax.complex(weight[:, 0], weight[:, 1])
        return jnp.einsum("...ki,kio->...ko", spectrum, r)


@checked
class Diffusion(AbstractLinearOperator):
    """Diffusion over tokens, diagonal in eigenfunctions of the Laplacian on the grid,

        u_t = κ Δ_x u,   flow(u, h) = C⁻¹ exp(-κ h |k|²) C u.

    C is the cosine transform, k = π j / L, with no flux through the ends. On a periodic domain
    it is the Fourier transform, k = 2π j / L. L is the length of an axis, N for N text tokens.
    It sees all tokens, so use it in encoders.

    **Arguments:** `rate`, κ ≥ 0, a number, in squared distances of the domain per layer.

    **Raises:** `InputError` if the domain is not a grid or has weights.
    """

    rate: Float[Array, ""] = eqx.field(converter=nonnegative_array)

    dissipative: ClassVar[bool] = True

    def apply(self, function: Spectral, u: State, domain: TokenDomain) -> State:
        v = on_grid(self, u, domain)
        if self.rate.shape:
            raise InputError(f"Diffusion: rate has shape {self.rate.shape}; pass one number.")
        assert domain.grid is not None
        periodic = is_periodic(self, domain)
        along = (
            2 * np.pi * np.fft.fftfreq(n, step)
            if periodic
            else np.pi * np.arange(n) / (n * step)
            for n, step in zip(domain.grid, domain.steps, strict=True)
        )
        laplacian = -sum(k**2 for k in np.meshgrid(*along, indexing="ij"))
        factor = function(self.rate.astype(u.dtype) * jnp.asarray(laplacian, u.dtype))
        factor = jnp.broadcast_to(factor[..., None], v.shape)
        axes = grid_axes(domain)
        if periodic:
            v = jnp.fft.ifftn(factor * jnp.fft.fftn(v, axes=axes), axes=axes).real
        else:
            v = factor * jax.scipy.fft.dctn(v, axes=axes, norm="ortho")
            v = jax.scipy.fft.idctn(v, axes=axes, norm="ortho")
        return v.reshape(u.shape).astype(u.dtype)
