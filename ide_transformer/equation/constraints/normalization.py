"""Base classes of the constraints that scale each token to unit root mean square."""

from dataclasses import replace
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ...arguments import is_known
from ...errors import InputError
from ..affine import Vector, affine, inverse_affine
from ..feature_domain import FeatureDomain
from ..function_space import FunctionSpace
from ..shapes import Features
from .sets import AbstractRescaling, Scales


if TYPE_CHECKING:
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar


class AbstractNormalization(AbstractRescaling):
    """A normalisation, token by token, with gain γ and bias β (`None` for 1 and 0),

        project(v) = β + γ P(v),   P(v) = v / sqrt(⟨v²⟩ + eps),

    ⟨·⟩ the mean over Ω_y. It maps onto { u : ⟨((u-β)/γ)²⟩ = 1 }.
    """

    gain: AbstractVar[Vector | None]
    bias: AbstractVar[Vector | None]
    eps: AbstractVar[float]
    # Its points and their weights; `None` for equal ones.
    domain: AbstractVar[FeatureDomain | None]

    def centre(self, v: Features) -> Features:
        """The linear map that comes before the scaling."""
        return v

    def mean(self, v: Features) -> Float[Array, "*batch 1"]:
        """The mean over Ω_y."""
        if self.domain is None:
            return jnp.mean(v, axis=-1, keepdims=True)
        if self.domain.features != v.shape[-1]:
            raise InputError(
                f"{type(self).__name__}: domain={self.domain} has {self.domain.features} "
                f"points, but the state has {v.shape[-1]} features; give one with as many."
            )
        return v @ jnp.asarray(self.domain.weights, v.dtype)[:, None]

    def at_points(self, space: FunctionSpace) -> "AbstractNormalization":
        domain = None if space.domain.equal else space.domain
        gain, bias = self.gain, self.bias
        functions = {}
        if gain is not None and gain.ndim:
            functions["gain"] = space.features.of_factors(gain)
        if bias is not None and bias.ndim:
            functions["bias"] = space.features.of_values(bias)
        return replace(self, domain=domain, **functions)

    def times(self, factor: Float[Array, ""]) -> "AbstractNormalization":
        """The normalisation whose outputs are `factor` times as large."""
        gain = factor if self.gain is None else factor * self.gain
        bias = {} if self.bias is None else {"bias": factor * self.bias}
        return replace(self, gain=gain, **bias)

    @property
    def units(self) -> tuple[Vector | None, Vector | None]:
        """Gain and bias in units of which a state is measured before P."""
        return None, None

    def project(self, u: Features) -> Features:
        s, _ = self._scaled(u)
        return affine(s, self.gain, self.bias)

    def tangent(self, u: Features, du: Features) -> Features:
        s, scale = self._scaled(u)
        ds = self.centre(inverse_affine(du, self.units[0], None))
        return affine((ds - s * self.mean(s * ds)) * scale, self.gain, None)

    def residual(self, u: Features) -> Float[Array, "*batch"]:
        s = inverse_affine(u, self.gain, self.bias)
        centred = self.centre(s)
        scale = jnp.abs(jnp.sqrt(self.mean(centred * centred)) - 1)
        return jnp.maximum(jnp.abs(self.mean(s - centred)), scale)[..., 0]

    def scales(self, u: Features) -> Scales:
        centred = self.centre(inverse_affine(u, *self.units))
        return (jnp.sqrt(self.mean(centred * centred) + self.eps),)

    def unproject(self, projected: Features, scales: Scales) -> Features:
        *mean, deviation = scales
        v = deviation * inverse_affine(projected, self.gain, self.bias)
        return affine(sum(mean, v), *self.units)

    def _scaled(self, u: Features) -> tuple[Features, Float[Array, "*batch 1"]]:
        """`P` of the state in its units, and the factor that it takes."""
        v = self.centre(inverse_affine(u, *self.units))
        square = self.mean(v * v) + self.eps
        if is_known(square) and not np.all(square):
            name = type(self).__name__
            raise InputError(
                f"{name}: a token whose features are all the same has no projection; write "
                f"{name}(…, eps=1e-5), as layer norm does."
            )
        scale = lax.rsqrt(square)
        return v * scale, scale


class AbstractCentredNormalization(AbstractNormalization):
    """A normalisation that subtracts the mean of each token first, so that P(v) has mean 0
    and, but for eps, variance 1."""

    def centre(self, v: Features) -> Features:
        return v - self.mean(v)

    def scales(self, u: Features) -> Scales:
        return (self.mean(inverse_affine(u, *self.units)), *super().scales(u))


class AbstractSphere(AbstractNormalization):
    """A normalisation that measures states in units of gain and bias,

        project(v) = β + γ P((v-β)/γ).

    It leaves its set where it is, so schemes that use it converge as h → 0.
    """

    @property
    def units(self) -> tuple[Vector | None, Vector | None]:
        return self.gain, self.bias
