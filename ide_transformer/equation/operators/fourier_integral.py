import itertools
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ...arguments import NonNegativeFloat, PositiveInt
from ...errors import InputError
from ..constraints.constraint import AbstractConstraint
from ..constraints.free import Free
from ..domain import TokenDomain
from ..shapes import State
from .activations import Activation, gelu
from .grid import check_axes, check_periodic, grid_axes, on_grid
from .linear import Linear
from .operator import AbstractOperator, check_features


class FourierIntegral(AbstractOperator):
    """An integral over tokens whose kernel is a function of the difference, given by its lowest
    waves, the layer of a Fourier neural operator:

        du/dt = σ(∫_Ωx κ(x - x') N(u)(x') dx' + ∫_Ωy W N(u) dy + b),
        κ(x) = Σ_|k|<modes R_k exp(2πi k·x / L),   R_{-k} the conjugate of R_k,

    over a periodic domain of measure 1. It is the same function on every grid that can tell
    the waves apart. Source: Li et al., "Fourier neural operator", 2021, arXiv 2010.08895.

    **Arguments:**

    - `features`: width of the state.
    - `modes`: waves along each axis, the constant one among them.
    - `dimension`: of the tokens.
    - `activation`: σ.
    - `normalization`: N, applied to the input.
    - `bias`: whether there is b.
    - `std`, `output_std`: standard deviation of the initial W, and of R (default: the same).

    **Raises:** `InputError` on a domain that is not periodic, whose points have weights or are
    not equally spaced, or that has fewer than `2 modes - 1` points along an axis.
    """

    sees_all: ClassVar[bool] = True

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
        normal = self.normalization.project(u)
        v, axes = on_grid(self, normal, domain), grid_axes(domain)
        assert domain.grid is not None
        if min(domain.grid) < 2 * self.modes - 1:
            raise InputError(
                f"FourierIntegral: a grid of {domain.grid} points cannot tell its {self.modes} "
                f"waves apart; give at least {2 * self.modes - 1} points along each axis."
            )
        spectrum = jnp.fft.rfftn(v, axes=axes, norm="forward")
        at = (..., *self.waves.T, slice(None))
        r = jax.lax.complex(*jnp.moveaxis(self.weight.astype(u.dtype), 1, 0))
        mixed = jnp.einsum("...ki,kio->...ko", spectrum[at], r)
        spectrum = jnp.zeros_like(spectrum).at[at].set(mixed)
        integral = jnp.fft.irfftn(spectrum, s=domain.grid, axes=axes, norm="forward")
        return self.activation(integral.reshape(u.shape).astype(u.dtype) + self.linear(normal))
