"""Linear equations with constant coefficients and an exact flow.

ide-transformer train emulators/split
"""

from typing import Literal, NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ide_transformer.arguments import PositiveFloat, PositiveInt, checked
from ide_transformer.equation import (
    AbstractLinearOperator,
    Dimension,
    Spectral,
    State,
    TokenDomain,
    check_axes,
    check_features,
    grid_axes,
    on_grid,
)
from ide_transformer.errors import InputError


# A number, numbers `[features]`, or `[features][axes]`.
Coefficient: TypeAlias = float | tuple[float, ...] | tuple[tuple[float, ...], ...]
Name: TypeAlias = Literal["damping", "advection", "diffusion", "dispersion", "hyper_diffusion"]
Table: TypeAlias = tuple[tuple[float, ...], ...]


class _Coefficients(NamedTuple):
    """The initial coefficients `[features][axes]`, ordered by their derivatives. Damping has
    one axis."""

    damping: Table
    advection: Table
    diffusion: Table
    dispersion: Table
    hyper_diffusion: Table


_ORDERS = {name: order for order, name in enumerate(_Coefficients._fields)}


@checked
class ConstantCoefficients(AbstractLinearOperator):
    """A linear equation with constant coefficients on a torus; for each feature

        u_t = -r u + Σ_i (-a_i ∂_i + d_i ∂_i² + s_i ∂_i³ - h_i ∂_i⁴) u.

    The wave `e^{ik·x}` has the eigenvalue

        -r - Σ_i (d_i k_i² + h_i k_i⁴) - i Σ_i (a_i k_i + s_i k_i³),

    so the flow is exact over any time, for all waves that the grid resolves. On an even number
    of points, odd derivatives of the highest wave are zero.

    **Arguments:**

    - `features`: the features of the state.
    - `dimension`: the dimension of the torus.
    - `damping`, `advection`, `diffusion`, `dispersion`, `hyper_diffusion`: r, a, d, s, h, in
      powers of distances of the domain per unit of depth. Each is a number, `[features]`, or
      `[features, dimension]`, where 1 stands for any number of features.
    - `learned`: the coefficients to learn, from these initial values. r, d and h are then
      `e^w`, so that no wave grows; a and s are `w ℓ` and `w ℓ³`.
    - `spacing`: ℓ, about the distance of two points.

    **Raises:** `InputError` for waves that grow without bound: r < 0, h < 0, or d < 0 with
    h = 0; for domains that are not a periodic grid. With d < 0 and h > 0, as in
    Kuramoto–Sivashinsky, a wave grows at most at the rate `d²/4h`.
    """

    initial: _Coefficients = eqx.field(static=True)
    # w, with a single axis, since weight decay is for matrices.
    weights: dict[str, Float[Array, " _"]]
    spacing: float = eqx.field(static=True)

    def __init__(
        self,
        features: PositiveInt,
        *,
        dimension: Dimension = 1,
        damping: Coefficient = 0.0,
        advection: Coefficient = 0.0,
        diffusion: Coefficient = 0.0,
        dispersion: Coefficient = 0.0,
        hyper_diffusion: Coefficient = 0.0,
        learned: tuple[Name, ...] = (),
        spacing: PositiveFloat = 1.0,
    ):
        values = (damping, advection, diffusion, dispersion, hyper_diffusion)
        initial = {
            name: _broadcast(name, value, (features, dimension if order else 1))
            for (name, order), value in zip(_ORDERS.items(), values, strict=True)
        }
        _check_growth(initial)
        self.initial = _Coefficients(*(tuple(map(tuple, x.tolist())) for x in initial.values()))
        self.spacing = spacing
        self.weights = {}
        for name in learned:
            start = initial[name].ravel()
            if _ORDERS[name] % 2:
                start = start / spacing ** _ORDERS[name]
            elif (start <= 0).any():
                raise InputError(
                    f"ConstantCoefficients: {name}={start.min():g} is learned as e^w, so it "
                    "must be above 0."
                )
            else:
                start = np.log(start)
            self.weights[name] = jnp.asarray(start, jnp.result_type(float))

    @property
    def coefficients(self) -> dict[str, Float[Array | np.ndarray, "features axes"]]:
        """The coefficients with the present weights, by name. Damping has one axis."""
        coefficients = {}
        for name, order in _ORDERS.items():
            value = np.array(self.initial[order])
            if name in self.weights:
                w = self.weights[name].reshape(value.shape)
                value = w * self.spacing**order if order % 2 else jnp.exp(w)
            coefficients[name] = value
        return coefficients

    @property
    def dissipative(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether waves decay or grow."""
        return any(self._appears(name) for name, order in _ORDERS.items() if order % 2 == 0)

    @property
    def damped(self) -> bool:
        """Whether r is not 0, so that constants decay."""
        return self._appears("damping")

    def _appears(self, name: str) -> bool:
        return name in self.weights or bool(np.any(self.initial[_ORDERS[name]]))

    def apply(self, function: Spectral, u: State, domain: TokenDomain) -> State:
        check_features(self, u, len(self.initial.damping))
        check_axes(self, len(self.initial.advection[0]), domain, periodic=True)
        v = on_grid(self, u, domain)
        axes = grid_axes(domain)
        factor = function(self._eigenvalues(domain, u.dtype))
        spectrum = jnp.fft.rfftn(v, axes=axes)
        spectrum = spectrum * jnp.broadcast_to(factor, spectrum.shape)
        v = jnp.fft.irfftn(spectrum, s=domain.grid, axes=axes)
        return v.reshape(u.shape).astype(u.dtype)

    def _eigenvalues(self, domain: TokenDomain, dtype: jnp.dtype) -> Array:
        """The eigenvalues `[*waves, features]`, without negative waves along the last axis.
        They are real without odd derivatives."""
        assert domain.grid is not None
        frequencies = [np.fft.fftfreq] * (domain.dimension - 1) + [np.fft.rfftfreq]
        sizes = zip(frequencies, domain.grid, domain.steps, strict=True)
        waves = [2 * np.pi * frequency(n, step) for frequency, n, step in sizes]
        # The highest wave of an even number of points is real.
        odd_waves = [
            np.where(np.isclose(abs(k) * step, np.pi), 0, k)
            for k, step in zip(waves, domain.steps, strict=True)
        ]
        even, odd = (np.meshgrid(*x, indexing="ij") for x in (waves, odd_waves))
        parts = [jnp.zeros((*even[0].shape, len(self.initial.damping)), dtype)] * 2
        for name, coefficient in self.coefficients.items():
            if not self._appears(name):
                continue
            order = _ORDERS[name]
            for c, k in zip(coefficient.T, odd if order % 2 else even, strict=False):
                power = jnp.asarray(k**order, dtype)
                parts[order % 2] -= jnp.tensordot(power, jnp.asarray(c, dtype), 0)
        oscillates = self._appears("advection") or self._appears("dispersion")
        return jax.lax.complex(*parts) if oscillates else parts[0]


def _broadcast(name: str, value: Coefficient, shape: tuple[int, int]) -> np.ndarray:
    """A coefficient as `[features, axes]`."""
    try:
        numbers = np.asarray(value, float)
        numbers = numbers[:, None] if numbers.ndim == 1 else numbers
        return np.broadcast_to(numbers, shape)
    except ValueError:
        raise InputError(
            f"ConstantCoefficients: {name}={value} does not fit {shape[0]} features and "
            f"{shape[1]} axes; pass a number, [features], or [features, axes]."
        ) from None


def _check_growth(coefficients: dict[str, np.ndarray]) -> None:
    # Hyper-diffusion bounds the growth of waves with negative diffusion.
    unbounded = coefficients["hyper_diffusion"] == 0
    for name in ("damping", "hyper_diffusion", "diffusion"):
        values = coefficients[name]
        if ((values < 0) & (unbounded if name == "diffusion" else True)).any():
            raise InputError(
                f"ConstantCoefficients: {name}={values.min():g} lets waves grow; it must be at "
                "least 0, except for diffusion with hyper_diffusion > 0. Growth can be another "
                "operator."
            )
