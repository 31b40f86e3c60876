"""Constraint sets of the state, and the maps of checkpoints."""

import abc
from dataclasses import replace
from typing import Any, ClassVar, TypeAlias

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
    """A closed set S of states; its indicator enters the equation as

        u_t = F(u) + ∂I_S(u),

    whose solution stays on S and moves with the tangential part of F.
    """

    # Whether a configuration may name it.
    configurable: ClassVar[bool] = True

    def mean(self, v: Features) -> Float[Array, "*batch 1"]:
        """The mean over Ω_y, by default of points of equal weights."""
        return jnp.mean(v, axis=-1, keepdims=True)

    @abc.abstractmethod
    def project(self, u: Features) -> Features:
        """The state of S that takes the place of `u`, token by token: for the spheres the
        nearest one in the metric of their gain."""

    @abc.abstractmethod
    def tangent(self, u: Features, du: Features) -> Features:
        """`d/dε project(u + ε du)` at `ε = 0+`: the part of `du` that S leaves free."""

    def residual(self, u: Features) -> Float[Array, "*batch"]:
        """The distance of each token from S, zero on it,

            ‖u - project(u)‖,   ‖v‖² = ⟨v²⟩,

        ⟨·⟩ the mean over Ω_y: the root mean square over features. The gradient is zero on S."""
        return root(self.mean((u - self.project(u)) ** 2))[..., 0]

    def at_points(self, space: FunctionSpace) -> "AbstractConstraint":
        """The constraint on functions of a space, at its points, of which the arrays of this
        one are coefficients; by default the same."""
        return self


def _mean(constraint: AbstractConstraint, domain: FeatureDomain | None, v: Features) -> Any:
    """The mean over the points of a domain; `None` for equal weights."""
    if domain is None:
        return jnp.mean(v, axis=-1, keepdims=True)
    if domain.features != v.shape[-1]:
        raise InputError(
            f"{type(constraint).__name__}: domain has {domain.features} points, but the state "
            f"has {v.shape[-1]} features."
        )
    return v @ jnp.asarray(domain.weights, v.dtype)[:, None]


def _unequal(space: FunctionSpace) -> FeatureDomain | None:
    """The points of a space of functions; `None` where their weights are equal."""
    return None if space.domain.equal else space.domain


# The shift and the scale of each token.
Scales: TypeAlias = PyTree[Float[Array, "*batch 1"]]


class AbstractRescaling(AbstractConstraint):
    """A constraint whose projection shifts and scales each token and loses nothing else, so
    that the shift and the scale undo it."""

    @abc.abstractmethod
    def scales(self, u: Features) -> Scales:
        """The shift and the scale, which `project(u)` loses."""

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

    S2 does not meet S1 with σ1 = 0: never impose both on one state. The ReLU of a
    feed-forward acts inside the field, on the features of `FeedForward`.

    **Arguments:**

    - `domain`: see `LayerNorm`; for the distance from S2.
    """

    domain: FeatureDomain | None = eqx.field(static=True, default=None)

    def mean(self, v: Features) -> Float[Array, "*batch 1"]:
        return _mean(self, self.domain, v)

    def at_points(self, space: FunctionSpace) -> "Nonnegative":
        return replace(self, domain=_unequal(space))

    def project(self, u: Features) -> Features:
        return jax.nn.relu(u)

    def tangent(self, u: Features, du: Features) -> Features:
        return jnp.where(u > 0, du, jnp.where(u < 0, 0, jax.nn.relu(du)))


class AbstractNormalization(AbstractRescaling):
    """A normalisation, token by token, with gain γ and bias β (`None` for 1 and 0),

        project(v) = β + γ P(v),   P(v) = v / sqrt(⟨v²⟩ + eps),

    ⟨·⟩ the mean over Ω_y. It maps onto { u : ⟨((u-β)/γ)²⟩ = 1 }.
    """

    gain: Vector | None = eqx.field(converter=optional_array, default=None)
    bias: Vector | None = eqx.field(converter=optional_array, default=None)
    eps: NonNegativeFloat = eqx.field(static=True, default=0.0)
    domain: FeatureDomain | None = eqx.field(static=True, default=None)

    def centre(self, v: Features) -> Features:
        """The linear map that comes before the scaling."""
        return v

    def mean(self, v: Features) -> Float[Array, "*batch 1"]:
        return _mean(self, self.domain, v)

    def at_points(self, space: FunctionSpace) -> "AbstractNormalization":
        functions = {}
        y = space.features
        if self.gain is not None and self.gain.ndim:
            functions["gain"] = y.of_factors(self.gain)
        if self.bias is not None and self.bias.ndim:
            functions["bias"] = y.of_values(self.bias)
        return replace(self, domain=_unequal(space), **functions)

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
        return affine((ds - s * self.mean(s * ds)) * scale, self.gain)

    def residual(self, u: Features) -> Float[Array, "*batch"]:
        """The distance of each token from the set onto which it maps,

            ‖u - n(u)‖,   n(u) = β + γ P((u-β)/γ)   with eps = 0,

        the root mean square over features. With a gain that is a number n(u) is the nearest
        point; with a vector it is the nearest one in the metric of the gain, and the distance
        from the set is at most this one. All points are as near to a token without variation:
        its distance is `sqrt(⟨γ²⟩ (m² + 1))`, m its mean in units of γ."""
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
        """`P` of the state in its units, and the factor that it takes."""
        v = self.centre(inverse_affine(u, *self.units))
        square = self.mean(v * v) + self.eps
        if is_known(square) and not np.all(square):
            name = type(self).__name__
            raise InputError(
                f"{name}: a token with equal features has no projection; give eps=1e-5."
            )
        scale = lax.rsqrt(square)
        return v * scale, scale


class AbstractCentredNormalization(AbstractNormalization):
    """A normalisation that subtracts the mean of each token first."""

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


@checked
class LayerNorm(AbstractCentredNormalization):
    """Layer normalisation as checkpoints define it,

        project(v) = β + γ (v-α) / sqrt(var + eps),

    with α and var the mean and variance of v over features (Ba, Kiros, Hinton, arXiv
    1607.06450). Before an operator it is the pre-norm; as the constraint of an equation
    solved with steps h = 1 it is the post-norm of the original Transformer.

    It maps onto `Sphere(gain, bias)`. With a gain or bias that varies over features it moves
    states that are already there and has no limit as h → 0: refine with `Sphere` instead. An
    adaptive solve fails where its tolerance is below the distance of that move.

    **Arguments:**

    - `gain`, `bias`: γ and β, a number or `[features]`; `None` for 1 and 0.
    - `eps`: added to the variance.
    - `domain`: the points and weights of means over Ω_y; `None` for equal weights.
    """

    eps: NonNegativeFloat = eqx.field(static=True, default=1e-5)


@checked
class RMSNorm(AbstractNormalization):
    """Root-mean-square normalisation as checkpoints define it,

        project(v) = γ v / sqrt(mean_y v² + eps)

    (Zhang, Sennrich, arXiv 1910.07467). It maps onto `RMSSphere(gain)`. As with `LayerNorm`,
    a gain that varies over features leaves no limit as h → 0.

    **Arguments:**

    - `eps`: added to the mean square.
    - `gain`, `domain`: see `LayerNorm`.
    """

    bias: ClassVar[None] = None  # pyright: ignore[reportIncompatibleVariableOverride]
    eps: NonNegativeFloat = eqx.field(static=True, default=1e-5)


@checked
class RMSSphere(AbstractSphere):
    """The sphere of fixed root mean square, token by token:

        { u : mean_y (u/γ)² = 1 },   project(v) = v / sqrt(mean_y (v/γ)² + eps).

    With a scalar gain it is root-mean-square normalisation; with a vector, the map of
    existing checkpoints is `RMSNorm`.

    **Arguments:**

    - `gain`: γ, positive, a number or `[features]`.
    - `eps`: added to the mean square; 0 is the exact projection.
    - `domain`: see `LayerNorm`.
    """

    gain: Vector | None = eqx.field(converter=optional_positive_array, default=None)
    bias: ClassVar[None] = None  # pyright: ignore[reportIncompatibleVariableOverride]


@checked
class Sphere(AbstractSphere, AbstractCentredNormalization):
    """The set S1 of the paper, token by token:

        S1 = { u : mean_y (u-β)/γ = 0,  mean_y ((u-β)/γ)² = 1 },

    with the bias β in the place of σ1 and the gain γ in that of σ2. Its projection is
    Theorem 3.1 of Tai, Liu, Li and Chan (arXiv 2510.03989),

        project(v) = β + γ P((v-β)/γ),   P(v) = (v-α) / sqrt(var + eps),

    with α and var the mean and variance of v over features: the point of S1 nearest to v in
    the metric of the gain, `mean_y ((u-v)/γ)²`. It leaves S1 where it is, so schemes that use
    it converge as h → 0. With a scalar gain and bias it is layer normalisation; with vectors,
    the affine map of existing checkpoints is `LayerNorm`.

    **Arguments:**

    - `gain`: γ, positive, a number or `[features]`.
    - `eps`: added to the variance. 0 is the exact projection; a positive one (layer norm
      uses 1e-5) keeps tokens of zero variance finite and moves S1 by about `eps / 2`.
    - `bias`, `domain`: see `LayerNorm`.
    """

    gain: Vector | None = eqx.field(converter=optional_positive_array, default=None)
