"""Conservation laws with a local network as flux.

ide-transformer train emulators/split
"""

import functools as ft
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ide_transformer.arguments import (
    NonNegativeFloat,
    OddWidth,
    PositiveFloat,
    PositiveInt,
    checked,
)
from ide_transformer.equation import (
    AbstractOperator,
    Activation,
    Dimension,
    State,
    TokenDomain,
    affine,
    check_axes,
    check_features,
    convolve,
    gelu,
)


@checked
class LocalFlux(AbstractOperator):
    """A conservation law on a torus with a local network as flux,

        u_t = -s div F(u),   F = (F_1, …, F_dimension) for each feature.

    F consists of `depth` convolutions with a nonlinearity σ, and a linear convolution:

        v_0 = u,   v_j(x) = σ(Σ_k W_j,k v_{j-1}(x + kℓ) + b_j),   |k| <= r along each axis,
        F(x - ℓ/2) = Σ_k V_k v_depth(x - kℓ),   k in {0, 1} along each axis.

    The divergence is a difference of fluxes at ±ℓ/2. So the mean of u is conserved to rounding,
    and a constant state does not change. The operator reads u at multiples of ℓ from x, so it
    is the same on every grid: exact where these are points, else interpolated with order 4.

    **Arguments:**

    - `features`: the features of the state.
    - `hidden`: the features of v_j; default: 32.
    - `spacing`: ℓ, a distance of the domain.
    - `dimension`: the dimension of the torus.
    - `depth`: the number of nonlinear layers.
    - `width`: 2r + 1, the neighbours along each axis.
    - `speed`: s, a typical speed of u in distances of the domain per unit of depth.
    - `gated`: whether to multiply σ(…) by another convolution of v_{j-1}, which makes products
      such as u².
    - `activation`: σ.
    - `std`: the standard deviation of the initial V.

    **Raises:** `InputError` for domains that are not a periodic grid.
    """

    kernels: tuple[Float[Array, "..."], ...]
    biases: tuple[Float[Array, " _"], ...]
    output: Float[Array, "..."]
    spacing: float = eqx.field(static=True)
    speed: float = eqx.field(static=True)
    gated: bool = eqx.field(static=True)
    activation: Activation = eqx.field(static=True)

    def __init__(
        self,
        features: PositiveInt,
        hidden: PositiveInt | None = None,
        *,
        key: PRNGKeyArray,
        spacing: PositiveFloat,
        dimension: Dimension = 1,
        depth: PositiveInt = 2,
        width: OddWidth = 3,
        speed: PositiveFloat = 1.0,
        gated: bool = False,
        activation: Activation = gelu,
        std: NonNegativeFloat = 0.02,
    ):
        hidden = hidden or 32
        outputs = 2 * hidden if gated else hidden
        *keys, last = jax.random.split(key, depth + 1)
        inputs = (features, *(hidden,) * (depth - 1))
        window = (width,) * dimension
        self.kernels = tuple(
            math.sqrt(2 / (n * math.prod(window)))
            * jax.random.normal(layer_key, (*window, n, outputs))
            for n, layer_key in zip(inputs, keys, strict=True)
        )
        self.biases = tuple(jnp.zeros(outputs) for _ in inputs)
        fluxes = dimension * features
        self.output = std * jax.random.normal(last, (*(2,) * dimension, hidden, fluxes))
        self.spacing = spacing
        self.speed = speed
        self.gated = gated
        self.activation = activation

    def __call__(self, u: State, domain: TokenDomain) -> State:
        check_features(self, u, self.kernels[0].shape[-2])
        check_axes(self, self.output.ndim - 2, domain, periodic=True)
        v = u
        for kernel, bias in zip(self.kernels, self.biases, strict=True):
            v = affine(convolve(self, v, kernel, domain, spacing=self.spacing), None, bias)
            if self.gated:
                v, factor = jnp.split(v, 2, axis=-1)
                v = self.activation(v) * factor
            else:
                v = self.activation(v)
        flux = convolve(self, v, self.output, domain, spacing=self.spacing)
        return -self.speed * self._divergence(flux, domain)

    def _divergence(self, flux: Float[Array, "..."], domain: TokenDomain) -> State:
        """`Σ_i ∂_i F_i`, from F half a spacing before each point along all axes."""
        axes = domain.dimension
        identity = np.eye(flux.shape[-1] // axes)
        difference = np.array([1.0, -1.0])
        mean = np.array([0.5, 0.5])
        stencils = [
            ft.reduce(
                np.multiply.outer, [difference if axis == i else mean for axis in range(axes)]
            )
            for i in range(axes)
        ]
        kernel = np.concatenate([np.multiply.outer(x, identity) for x in stencils], axis=-2)
        kernel = jnp.asarray(kernel / self.spacing, flux.dtype)
        # A negative distance reads the point after and the point itself.
        return convolve(self, flux, kernel, domain, spacing=-self.spacing)
