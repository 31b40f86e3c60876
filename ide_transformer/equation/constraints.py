"""Constraints on the state, and normalisations of checkpoints."""

import abc
from dataclasses import replace
from typing import ClassVar, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PyTree

from ..arguments import NonNegativeFloat, checked, is_known
from ..errors import InputError
from .arrays import (
    Features,
    Vector,
    affine,
    inverse_affine,
    optional_array,
    optional_positive_array,
    root,
)
from .function_space import FeatureDomain, FunctionSpace


class AbstractConstraint(eqx.Module):
    """A closed set S of states. Its indicator enters the equation,

        u_t = F(u) + ∂I_S(u),

    so the solution stays on S and moves with the tangential part of F.
    """

    # Whether a configuration may name it.
    configurable: ClassVar[bool] = True
    # Points and weights of means over Ω_y; `None` for equal weights. Without an annotation it
    # is no field here, so that subclasses may add it as their last.
    domain = None

    def mean(self, v: Features) -> Float[Array, "*batch 1"]:
        """The mean over Ω_y."""
        if self.domain is None:
            return jnp.mean(v, axis=-1, keepdims=True)
        return v @ jnp.asarray(self.domain.weights, v.dtype)[:, None]

    @abc.abstractmethod
    def project(self, u: Features) -> Features:
        """Projects each token on S, in the metric of the gain for spheres."""

    @abc.abstractmethod
    def tangent(self, u: Features, du: Features) -> Features:
        """The part of `du` tangential to S: `d/dε project(u + ε du)` at `ε = 0+`."""

    def residual(self, u: Features) -> Float[Array, "*batch"]:
        """The distance of each token from S,

            ‖u - project(u)‖,   ‖v‖² = ⟨v²⟩,

        ⟨·⟩ the mean over Ω_y. On S the distance and its gradient are zero."""
        return root(self.mean((u - self.project(u)) ** 2))[..., 0]

    def at_points(self, space: FunctionSpace) -> "AbstractConstraint":
        """The constraint on functions of a feature, reading its arrays as coefficients in
        `space`."""
        return self


def _domain_of_means(space: FunctionSpace) -> FeatureDomain | None:
    return None if space.domain.equal else space.domain


# The shift and the scale of each token.
Scales: TypeAlias = PyTree[Float[Array, "*batch 1"]]


class AbstractRescaling(AbstractConstraint):
    """A constraint whose projection only shifts and scales each token, so it can be undone."""

    @abc.abstractmethod
    def scales(self, u: Features) -> Scales:
        """The shift and the scale that `project(u)` removes."""

    @abc.abstractmethod
    def unproject(self, projected: Features, scales: Scales) -> Features:
        """`u`, from `project(u)` and `scales(u)`."""


@checked
class Free(AbstractRescaling):
    """No constraint: S is the whole space, `u_t = F(u)`. As a normalisation: none."""

    def project(self, u: Features) -> Features:
        return u

    def tangent(self, u: Features, du: Features) -> Features:
        return du

    def scales(self, u: Features) -> Scales:
        return ()

    def unproject(self, projected: Features, scales: Scales) -> Features:
        return projected


@checked
class Nonnegative(AbstractConstraint):
    """The set S2 = { u : u ≥ 0 } of the paper; its projection is the ReLU.

    S2 does not meet S1 with σ1 = 0: never impose both on one state. The ReLU of a feed-forward
    acts inside the field, see `FeedForward`.

    **Arguments:** `domain`, points and weights of Ω_y for the distance from S2; `None` for
    equal weights.
    """

    domain: FeatureDomain | None = eqx.field(static=True, default=None)

    def at_points(self, space: FunctionSpace) -> "Nonnegative":
        return replace(self, domain=_domain_of_means(space))

    def project(self, u: Features) -> Features:
        return jax.nn.relu(u)

    def tangent(self, u: Features, du: Features) -> Features:
        return jnp.where(u > 0, du, jnp.where(u < 0, 0, jax.nn.relu(du)))


class AbstractNormalization(AbstractRescaling):
    """A normalisation of each token with gain γ and bias β (`None` for 1 and 0),

        project(v) = β + γ P(v),   P(v) = v / sqrt(⟨v²⟩ + eps),

    ⟨·⟩ the mean over Ω_y. It maps onto { u : ⟨((u-β)/γ)²⟩ = 1 }.
    """

    gain: Vector | None = eqx.field(converter=optional_array, default=None)
    bias: Vector | None = eqx.field(converter=optional_array, default=None)
    eps: NonNegativeFloat = eqx.field(static=True, default=0.0)
    domain: FeatureDomain | None = eqx.field(static=True, default=None)

    def centre(self, v: Features) -> Features:
        """A linear map before the scaling."""
        return v

    def at_points(self, space: FunctionSpace) -> "AbstractNormalization":
        functions = {}
        y = space.features
        if self.gain is not None and self.gain.ndim:
            functions["gain"] = y.of_factors(self.gain)
        if self.bias is not None and self.bias.ndim:
            functions["bias"] = y.of_values(self.bias)
        return replace(self, domain=_domain_of_means(space), **functions)

    def times(self, factor: Float[Array, ""]) -> "AbstractNormalization":
        """The normalisation with outputs multiplied by `factor`."""
        gain = factor if self.gain is None else factor * self.gain
        bias = {} if self.bias is None else {"bias": factor * self.bias}
        return replace(self, gain=gain, **bias)

    @property
    def units(self) -> tuple[Vector | None, Vector | None]:
        """The gain and bias in which P measures a state."""
        return None, None

    def project(self, u: Features) -> Features:
        s, _ = self._scaled(u)
        return affine(s, self.gain, self.bias)

    def tangent(self, u: Features, du: Features) -> Features:
        s, scale = self._scaled(u)
        ds = self.centre(inverse_affine(du, self.units[0], None))
        return affine((ds - s * self.mean(s * ds)) * scale, self.gain)

    def residual(self, u: Features) -> Float[Array, "*batch"]:
        """The distance of each token from the image of the map,

            ‖u - n(u)‖,   n(u) = β + γ P((u-β)/γ)   with eps = 0.

        With a vector as gain it is an upper bound, since n(u) is nearest in the metric of the
        gain. For a token of equal features it is `sqrt(⟨γ²⟩ (m² + 1))`, m their value in units
        of γ."""
        s = inverse_affine(u, self.gain, self.bias)
        v = self.centre(s)
        square = self.mean(v * v)
        flat = square == 0
        gaps = affine(s - v * lax.rsqrt(jnp.where(flat, 1, square)), self.gain)
        unit = affine(jnp.ones_like(s), self.gain)
        return root(self.mean(gaps**2 + jnp.where(flat, unit**2, 0)))[..., 0]

    def scales(self, u: Features) -> Scales:
        centred = self.centre(inverse_affine(u, *self.units))
        return (jnp.sqrt(self.mean(centred * centred) + self.eps),)

    def unproject(self, projected: Features, scales: Scales) -> Features:
        *mean, deviation = scales
        v = deviation * inverse_affine(projected, self.gain, self.bias)
        return affine(sum(mean, v), *self.units)

    def _scaled(self, u: Features) -> tuple[Features, Float[Array, "*batch 1"]]:
        """P of the state in its units, and the factor by which P scales."""
        v = self.centre(inverse_affine(u, *self.units))
        square = self.mean(v * v) + self.eps
        if is_known(square) and not np.all(square):
            raise InputError(
                f"{type(self).__name__}: the features of a token are all equal; set eps=1e-5."
            )
        scale = lax.rsqrt(square)
        return v * scale, scale


class AbstractCentredNormalization(AbstractNormalization):
    """A normalisation that first subtracts the mean of each token."""

    def centre(self, v: Features) -> Features:
        return v - self.mean(v)

    def scales(self, u: Features) -> Scales:
        return (self.mean(inverse_affine(u, *self.units)), *super().scales(u))


class AbstractSphere(AbstractNormalization):
    """A normalisation in units of gain and bias,

        project(v) = β + γ P((v-β)/γ).

    It does not move points of its set, so schemes converge as h → 0.
    """

    @property
    def units(self) -> tuple[Vector | None, Vector | None]:
        return self.gain, self.bias


@checked
class LayerNorm(AbstractCentredNormalization):
    """Layer normalisation as checkpoints define it,

        project(v) = β + γ (v-α) / sqrt(var + eps),

    α and var the mean and variance of v over features (Ba, Kiros, Hinton, arXiv 1607.06450).
    Before an operator it is the pre-norm. As the constraint, with steps h = 1, it is the
    post-norm of the original Transformer.

    It maps onto `Sphere(gain, bias)`. A gain or bias that varies over features moves points of
    that set: there is no limit as h → 0. Refine with `Sphere` instead.

    **Arguments:**

    - `gain`, `bias`: γ and β, a number or `[features]`; `None` for 1 and 0.
    - `eps`: added to the variance.
    - `domain`: points and weights of means over Ω_y; `None` for equal weights.
    """

    eps: NonNegativeFloat = eqx.field(static=True, default=1e-5)


@checked
class RMSNorm(AbstractNormalization):
    """Root-mean-square normalisation as checkpoints define it,

        project(v) = γ v / sqrt(mean_y v² + eps)

    (Zhang, Sennrich, arXiv 1910.07467). It maps onto `RMSSphere(gain)`. Like `LayerNorm` it has
    no limit as h → 0 if the gain varies over features.

    **Arguments:**

    - `gain`: γ, a number or `[features]`; `None` for 1.
    - `eps`: added to the mean square.
    - `domain`: points and weights of means over Ω_y; `None` for equal weights.
    """

    bias: ClassVar[None] = None  # pyright: ignore[reportIncompatibleVariableOverride]
    eps: NonNegativeFloat = eqx.field(static=True, default=1e-5)


@checked
class RMSSphere(AbstractSphere):
    """The sphere of fixed root mean square,

        { u : mean_y (u/γ)² = 1 },   project(v) = v / sqrt(mean_y (v/γ)² + eps).

    With a scalar gain it is root-mean-square normalisation. Checkpoints with a vector are
    `RMSNorm`.

    **Arguments:**

    - `gain`: γ, positive, a number or `[features]`; `None` for 1.
    - `eps`: added to the mean square.
    - `domain`: points and weights of means over Ω_y; `None` for equal weights.
    """

    gain: Vector | None = eqx.field(converter=optional_positive_array, default=None)
    bias: ClassVar[None] = None  # pyright: ignore[reportIncompatibleVariableOverride]


@checked
class Sphere(AbstractSphere, AbstractCentredNormalization):
    """The set S1 of the paper, for each token,

        S1 = { u : mean_y (u-β)/γ = 0,  mean_y ((u-β)/γ)² = 1 },

    with bias β for σ1 and gain γ for σ2. The projection is Theorem 3.1 of Tai, Liu, Li and Chan
    (arXiv 2510.03989),

        project(v) = β + γ P((v-β)/γ),   P(v) = (v-α) / sqrt(var + eps),

    α and var the mean and variance of v over features. It is the point of S1 nearest to v in
    the metric `mean_y ((u-v)/γ)²`. It does not move points of S1, so schemes converge as h → 0.
    With a scalar gain and bias it is layer normalisation. Checkpoints with vectors are
    `LayerNorm`.

    **Arguments:**

    - `gain`, `bias`: γ > 0 and β, a number or `[features]`; `None` for 1 and 0.
    - `eps`: added to the variance. 0 is the exact projection. A positive number (layer norm
      uses 1e-5) keeps tokens of zero variance finite and moves S1 by about `eps / 2`.
    - `domain`: points and weights of means over Ω_y; `None` for equal weights.
    """

    gain: Vector | None = eqx.field(converter=optional_positive_array, default=None)
