import equinox as eqx
from jaxtyping import Array, Float

from ..broadcast import along_features
from .constraint import AbstractConstraint
from .standardize import scale_to_unit_rms, scale_to_unit_rms_tangent, unit_rms_residual


class RMSNorm(AbstractConstraint):
    """Root-mean-square normalisation as checkpoints define it,

        project(v) = γ v / sqrt(mean_y v² + eps)

    (Zhang, Sennrich, arXiv 1910.07467). It maps onto `RMSSphere(gain)`; what `LayerNorm`
    says of gains that vary over features holds here too.

    **Arguments:**

    - `gain`: γ, a scalar or `[features]`.
    - `eps`: added to the mean square.
    """

    gain: Float[Array, " features"] | float = 1.0
    eps: float = eqx.field(static=True, default=1e-5)

    def project(
        self, u: Float[Array, "*batch features"]
    ) -> Float[Array, "*batch features"]:
        return along_features(self.gain, u) * scale_to_unit_rms(u, self.eps)

    def tangent(
        self, u: Float[Array, "*batch features"], du: Float[Array, "*batch features"]
    ) -> Float[Array, "*batch features"]:
        return along_features(self.gain, u) * scale_to_unit_rms_tangent(u, du, self.eps)

    def residual(self, u: Float[Array, "*batch features"]) -> Float[Array, "*batch"]:
        return unit_rms_residual(u / along_features(self.gain, u))
