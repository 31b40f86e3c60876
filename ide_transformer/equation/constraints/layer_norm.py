import equinox as eqx
from jaxtyping import Array, Float

from ...arguments import NonNegativeFloat
from ..affine import optional_array
from ..feature_domain import FeatureDomain
from .normalization import AbstractCentredNormalization


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
