from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, Float

from ...arguments import NonNegativeFloat
from ..affine import optional_array
from ..feature_domain import FeatureDomain
from .normalization import AbstractNormalization


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
