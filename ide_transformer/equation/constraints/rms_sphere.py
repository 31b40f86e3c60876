from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, Float

from ...arguments import NonNegativeFloat
from ..affine import optional_positive_array
from ..feature_domain import FeatureDomain
from .normalization import AbstractSphere


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
