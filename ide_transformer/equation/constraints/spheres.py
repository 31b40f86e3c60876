"""Spheres, and the maps of layer norms in checkpoints."""

from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, Float

from ...arguments import NonNegativeFloat
from ..affine import optional_array, optional_positive_array
from ..feature_domain import FeatureDomain
from .normalization import AbstractCentredNormalization, AbstractNormalization, AbstractSphere


class LayerNorm(AbstractCentredNormalization):
    """Layer normalisation as checkpoints define it,

        project(v) = β + γ (v-α) / sqrt(var + eps),

    with α and var the mean and variance of v over features (Ba, Kiros, Hinton, arXiv
    1607.06450). Before an operator it is the pre-norm; as the constraint of an equation
    solved with steps h = 1 it is the post-norm of the original Transformer.

    It maps onto `Sphere(gain, bias)`. With a gain or bias that varies over features it
    moves the states that are already there, so it has no limit as h → 0: refine such an
    equation with `Sphere` instead.

    **Arguments:**

    - `gain`: γ, a number or `[features]`.
    - `bias`: β, a number or `[features]`.
    - `eps`: added to the variance.
    - `domain`: the points and weights of means over Ω_y; `None` for equal weights.
    """

    gain: Float[Array, "*features"] | None = eqx.field(converter=optional_array, default=None)
    bias: Float[Array, "*features"] | None = eqx.field(converter=optional_array, default=None)
    eps: NonNegativeFloat = eqx.field(static=True, default=1e-5)
    domain: FeatureDomain | None = eqx.field(static=True, default=None)


class RMSNorm(AbstractNormalization):
    """Root-mean-square normalisation as checkpoints define it,

        project(v) = γ v / sqrt(mean_y v² + eps)

    (Zhang, Sennrich, arXiv 1910.07467). It maps onto `RMSSphere(gain)`. As with `LayerNorm`,
    a gain that varies over features leaves no limit as h → 0.

    **Arguments:**

    - `gain`: γ, a number or `[features]`.
    - `eps`: added to the mean square.
    - `domain`: the points and weights of means over Ω_y; `None` for equal weights.
    """

    gain: Float[Array, "*features"] | None = eqx.field(converter=optional_array, default=None)
    eps: NonNegativeFloat = eqx.field(static=True, default=1e-5)
    domain: FeatureDomain | None = eqx.field(static=True, default=None)

    bias: ClassVar[None] = None


class RMSSphere(AbstractSphere):
    """The sphere of fixed root mean square, token by token:

        { u : mean_y (u/γ)² = 1 },   project(v) = v / sqrt(mean_y (v/γ)² + eps).

    With a scalar gain it is root-mean-square normalisation; with a vector, the map of
    existing checkpoints is `RMSNorm`.

    **Arguments:**

    - `gain`: γ, positive, a number or `[features]`.
    - `eps`: added to the mean square; 0 is the exact projection.
    - `domain`: the points and weights of means over Ω_y; `None` for equal weights.
    """

    gain: Float[Array, "*features"] | None = eqx.field(
        converter=optional_positive_array, default=None
    )
    eps: NonNegativeFloat = eqx.field(static=True, default=0.0)
    domain: FeatureDomain | None = eqx.field(static=True, default=None)

    bias: ClassVar[None] = None


class Sphere(AbstractSphere, AbstractCentredNormalization):
    """The set S1 of the paper, token by token:

        S1 = { u : mean_y (u-β)/γ = 0,  mean_y ((u-β)/γ)² = 1 },

    with the bias β in the place of σ1 and the gain γ in that of σ2. Its projection is
    Theorem 3.1 of Tai, Liu, Li and Chan (arXiv 2510.03989),

        project(v) = β + γ P((v-β)/γ),   P(v) = (v-α) / sqrt(var + eps),

    with α and var the mean and variance of v over features. It leaves S1 where it is,
    so schemes that use it converge as h → 0. With a scalar gain and bias it is layer
    normalisation; with vectors, the affine map of existing checkpoints is `LayerNorm`.

    `project(v)` is the point of S1 nearest to v in the metric of the gain,
    `mean_y ((u-v)/γ)²`, which for a scalar gain is the Euclidean one. With a gain that varies
    over features it is another point than the Euclidean projection on that ellipsoid.

    **Arguments:**

    - `gain`: γ, positive, a number or `[features]`.
    - `bias`: β, a number or `[features]`.
    - `eps`: added to the variance. 0 is the exact projection; a positive one (layer norm
      uses 1e-5) keeps tokens of zero variance finite and moves S1 by about `eps / 2`.
    - `domain`: the points and weights of means over Ω_y; `None` for equal weights.

    **Raises:** `InputError` from `project`, with `eps = 0`, for a token of zero variance.
    """

    gain: Float[Array, "*features"] | None = eqx.field(
        converter=optional_positive_array, default=None
    )
    bias: Float[Array, "*features"] | None = eqx.field(converter=optional_array, default=None)
    eps: NonNegativeFloat = eqx.field(static=True, default=0.0)
    domain: FeatureDomain | None = eqx.field(static=True, default=None)
