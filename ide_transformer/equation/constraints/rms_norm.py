import equinox as eqx
from jaxtyping import Array, Float

from ..affine import affine, inverse_affine, optional_array
from .constraint import AbstractRescaling
from .standardize import (
    root_mean_square,
    scale_to_unit_rms,
    scale_to_unit_rms_tangent,
    unit_rms_residual,
)


class RMSNorm(AbstractRescaling):
    """Root-mean-square normalisation as checkpoints define it,

        project(v) = γ v / sqrt(mean_y v² + eps)

    (Zhang, Sennrich, arXiv 1910.07467). It maps onto `RMSSphere(gain)`; what `LayerNorm`
    says of gains that vary over features holds here too.

    **Arguments:**

    - `gain`: γ, a number or `[features]`.
    - `eps`: added to the mean square.
    """

    gain: Float[Array, "*features"] | None = eqx.field(converter=optional_array, default=None)
    eps: float = eqx.field(static=True, default=1e-5)

    def project(self, u: Float[Array, "*batch features"]) -> Float[Array, "*batch features"]:
        return affine(scale_to_unit_rms(u, self.eps), self.gain, None)

    def tangent(
        self, u: Float[Array, "*batch features"], du: Float[Array, "*batch features"]
    ) -> Float[Array, "*batch features"]:
        return affine(scale_to_unit_rms_tangent(u, du, self.eps), self.gain, None)

    def residual(self, u: Float[Array, "*batch features"]) -> Float[Array, "*batch"]:
        return unit_rms_residual(inverse_affine(u, self.gain, None))

    def scales(self, u: Float[Array, "*batch features"]) -> Float[Array, "*batch 1"]:
        return root_mean_square(u, self.eps)

    def unproject(
        self,
        projected: Float[Array, "*batch features"],
        scales: Float[Array, "*batch 1"],
    ) -> Float[Array, "*batch features"]:
        return scales * inverse_affine(projected, self.gain, None)
