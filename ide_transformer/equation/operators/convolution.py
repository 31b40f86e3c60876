"""Integrals over tokens whose kernel is a function of the difference."""

import itertools
from typing import Annotated

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Complex, Float, PRNGKeyArray
from pydantic import Field

from ...arguments import NonNegativeFloat, PositiveInt
from ...errors import InputError
from ..arrays import State, affine
from ..constraints import AbstractConstraint, Free
from ..domain import TokenDomain
from .feed_forward import Activation, gelu
from .grid import check_axes, check_periodic, goes_around, grid_axes, on_grid
from .linear import Linear
from .operator import AbstractOperator, check_features


class Convolution(AbstractOperator):
    """A convolution over the tokens of a grid, an integral over a neighbourhood of each:

        du/dt = Σ_k N(u)(x + k) W_k + b,   |k| ≤ r along each axis,

    with u = 0 beyond a boundary, and around a periodic domain. Causal, of a text, it takes the
    token and the `width - 1` before it.

    **Arguments:**

    - `features`: width of the state.
    - `width`: tokens along each axis; `2 r + 1`, odd, unless it is causal.
    - `dimension`: of the tokens, 1 to 3.
    - `depthwise`: whether each feature has its own W_k, a number.
    - `causal`: whether it looks back only.
    - `normalization`: N, applied to the input.
    - `bias`: whether there is b.
    - `std`: standard deviation of the initial W.

    **Raises:** `InputError` on a domain that is no grid, or has weights.
    """

    weight: Float[Array, "..."]
    bias: Float[Array, " features"] | None
    normalization: AbstractConstraint
    causal: bool = eqx.field(static=True)

    def __init__(
        self,
        features: PositiveInt,
        *,
        key: PRNGKeyArray,
        width: PositiveInt = 3,
        dimension: Annotated[int, Field(ge=1, le=3)] = 1,
        depthwise: bool = False,
        causal: bool = False,
        normalization: AbstractConstraint = Free(),
        bias: bool = True,
        std: NonNegativeFloat = 0.02,
    ):
        if not causal and width % 2 == 0:
            raise InputError(
                f"Convolution(width={width}) has no token in its middle; choose an odd width."
            )
        if causal and dimension > 1:
            raise InputError(
                f"Convolution: causal=True in {dimension} dimensions; points of a plane have "
                "no order."
            )
        shape = (*(width,) * dimension, 1 if depthwise else features, features)
        self.weight = std * jax.random.normal(key, shape)
        self.bias = jnp.zeros(features) if bias else None
        self.normalization = normalization
        self.causal = causal

    def __call__(self, u: State, domain: TokenDomain) -> State:
        check_features(self, u, self.weight.shape[-1])
        check_axes(self, self.weight.ndim - 2, domain)
        v = on_grid(self, self.normalization.project(u), domain)
        width, axes = self.weight.shape[0], domain.dimension
        reach = (width - 1, 0) if self.causal else (width // 2, width // 2)
        v = v.reshape(-1, *v.shape[-1 - axes :])
        mode = "wrap" if goes_around("Convolution", domain) else "constant"
        v = jnp.pad(v, [(0, 0), *[reach] * axes, (0, 0)], mode=mode)
        grid = "DHW"[-axes:]
        v = lax.conv_general_dilated(
            v,
            self.weight.astype(u.dtype),
            (1,) * axes,
            "VALID",
            dimension_numbers=(f"N{grid}C", f"{grid}IO", f"N{grid}C"),
            feature_group_count=v.shape[-1] // self.weight.shape[-2],
        )
        return affine(v.reshape(u.shape), None, self.bias)


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
        check_periodic(self, domain)
        check_axes(self, self.dimension, domain)
        v = self.normalization.project(u)
        equally_spaced = domain.grid is not None and domain.weights is None
        integral = (self._on_grid if equally_spaced else self._at_points)(v, domain)
        return self.activation(integral.astype(u.dtype) + self.linear(v))

    def _on_grid(self, v: State, domain: TokenDomain) -> State:
        v, axes = on_grid(self, v, domain), grid_axes(domain)
        assert domain.grid is not None
        self._check_points(min(domain.grid) >= 2 * self.modes - 1, domain)
        spectrum = jnp.fft.rfftn(v, axes=axes, norm="forward")
        at = (..., *self.waves.T, slice(None))
        spectrum = jnp.zeros_like(spectrum).at[at].set(self._times_kernel(spectrum[at]))
        integral = jnp.fft.irfftn(spectrum, s=domain.grid, axes=axes, norm="forward")
        return integral.reshape(*v.shape[: -1 - len(axes)], domain.num_tokens, v.shape[-1])

    def _at_points(self, v: State, domain: TokenDomain) -> State:
        least = (2 * self.modes - 1) ** self.dimension
        self._check_points(not domain.prefix and domain.num_tokens >= least, domain)
        length = jnp.asarray(domain.period)[None]
        angles = 2 * jnp.pi * domain.points / length @ self.waves.T
        cos, sin = (wave(angles).astype(v.dtype) for wave in (jnp.cos, jnp.sin))
        weighted = jnp.einsum("...x,...xi->...xi", domain.shares.astype(v.dtype), v)
        # Real products: those of complex numbers cannot be kept for a gradient.
        spectrum = jax.lax.complex(cos.T @ weighted, -sin.T @ weighted)
        mixed = self._times_kernel(spectrum)
        # A wave k of which -k is none stands for both.
        both = jnp.asarray(np.where(self.waves[:, -1] > 0, 2, 1), v.dtype)[None]
        return (both * cos) @ mixed.real - (both * sin) @ mixed.imag

    def _check_points(self, enough: bool, domain: TokenDomain) -> None:
        if not enough:
            raise InputError(
                f"FourierIntegral: {domain.num_tokens} tokens, {domain.prefix} of them without "
                f"a place, cannot tell its {self.modes} waves apart; give at least "
                f"{2 * self.modes - 1} points along each axis, and no class token."
            )

    def _times_kernel(self, spectrum: Complex[Array, "..."]) -> Complex[Array, "..."]:
        """`[..., waves, features]`, each wave times its R."""
        weight = self.weight.astype(spectrum.real.dtype)
        r = jax.lax.complex(weight[:, 0], weight[:, 1])
        return jnp.einsum("...ki,kio->...ko", spectrum, r)
