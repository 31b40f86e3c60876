"""Base classes of the constraints that scale each token to unit root mean square."""

from typing import TYPE_CHECKING

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ..affine import affine, inverse_affine
from ..shapes import Features
from .constraint import AbstractRescaling


if TYPE_CHECKING:
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar


class AbstractNormalization(AbstractRescaling):
    """A normalisation, token by token, with gain γ and bias β (`None` for 1 and 0),

        project(v) = β + γ P(v),   P(v) = v / sqrt(⟨v²⟩ + eps),

    ⟨·⟩ the mean over features. It maps onto { u : ⟨((u-β)/γ)²⟩ = 1 }.
    """

    gain: AbstractVar[Float[Array, "*features"] | None]
    bias: AbstractVar[Float[Array, "*features"] | None]
    eps: AbstractVar[float]

    def centre(self, v: Features) -> Features:
        """The linear map that comes before the scaling."""
        return v

    def enter(self, u: Features) -> Features:
        """The argument of P for a state u."""
        return u

    def leave(self, v: Features) -> Features:
        """The inverse of `enter`."""
        return v

    def enter_rate(self, du: Features) -> Features:
        """The derivative of `enter` along du."""
        return du

    def project(self, u: Features) -> Features:
        s, _ = self._scaled(u)
        return affine(s, self.gain, self.bias)

    def tangent(self, u: Features, du: Features) -> Features:
        s, scale = self._scaled(u)
        ds = self.centre(self.enter_rate(du))
        return affine((ds - s * _mean(s * ds)) * scale, self.gain, None)

    def residual(self, u: Features) -> Float[Array, "*batch"]:
        s = inverse_affine(u, self.gain, self.bias)
        centred = self.centre(s)
        scale = jnp.abs(jnp.sqrt(_mean(centred * centred)) - 1)
        return jnp.maximum(jnp.abs(_mean(s - centred)), scale)[..., 0]

    def scales(self, u: Features) -> tuple[Float[Array, "*batch 1"], ...]:
        centred = self.centre(self.enter(u))
        return (jnp.sqrt(_mean(centred * centred) + self.eps),)

    def unproject(
        self, projected: Features, scales: tuple[Float[Array, "*batch 1"], ...]
    ) -> Features:
        *mean, deviation = scales
        v = deviation * inverse_affine(projected, self.gain, self.bias)
        return self.leave(sum(mean, v))

    def _scaled(self, u: Features) -> tuple[Features, Float[Array, "*batch 1"]]:
        """`P(enter(u))`, and the factor that it takes."""
        v = self.centre(self.enter(u))
        scale = lax.rsqrt(_mean(v * v) + self.eps)
        return v * scale, scale


class AbstractCentredNormalization(AbstractNormalization):
    """A normalisation that subtracts the mean of each token first, so that P(v) has mean 0
    and, but for eps, variance 1."""

    def centre(self, v: Features) -> Features:
        return v - _mean(v)

    def scales(self, u: Features) -> tuple[Float[Array, "*batch 1"], ...]:
        return (_mean(self.enter(u)), *super().scales(u))


class AbstractSphere(AbstractNormalization):
    """A normalisation that measures states in units of gain and bias,

        project(v) = β + γ P((v-β)/γ).

    It leaves its set where it is, so schemes that use it converge as h → 0.
    """

    def enter(self, u: Features) -> Features:
        return inverse_affine(u, self.gain, self.bias)

    def leave(self, v: Features) -> Features:
        return affine(v, self.gain, self.bias)

    def enter_rate(self, du: Features) -> Features:
        return inverse_affine(du, self.gain, None)


def _mean(x: Features) -> Float[Array, "*batch 1"]:
    return jnp.mean(x, axis=-1, keepdims=True)
