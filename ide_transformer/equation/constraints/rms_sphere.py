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


class RMSSphere(AbstractRescaling):
    """The sphere of fixed root mean square, token by token:

        { u : mean_y (u/γ)² = 1 },   project(v) = v / sqrt(mean_y (v/γ)² + eps).

    With a scalar gain it is root-mean-square normalisation; with a vector, the map of
    existing checkpoints is `RMSNorm`.

    **Arguments:**

    - `gain`: γ, positive, a number or `[features]`.
    - `eps`: added to the mean square; 0 is the exact projection.
    """

    gain: Float[Array, "*features"] | None = eqx.field(converter=optional_array, default=None)
    eps: float = eqx.field(static=True, default=0.0)

    def project(self, u: Float[Array, "*batch features"]) -> Float[Array, "*batch features"]:
        s = scale_to_unit_rms(inverse_affine(u, self.gain, None), self.eps)
        return affine(s, self.gain, None)

    def tangent(
        self, u: Float[Array, "*batch features"], du: Float[Array, "*batch features"]
    ) -> Float[Array, "*batch features"]:
        s = inverse_affine(u, self.gain, None)
        ds = inverse_affine(du, self.gain, None)
        return affine(scale_to_unit_rms_tangent(s, ds, self.eps), self.gain, None)

    def residual(self, u: Float[Array, "*batch features"]) -> Float[Array, "*batch"]:
        return unit_rms_residual(inverse_affine(u, self.gain, None))

    def scales(self, u: Float[Array, "*batch features"]) -> Float[Array, "*batch 1"]:
        return root_mean_square(inverse_affine(u, self.gain, None), self.eps)

    def unproject(
        self,
        projected: Float[Array, "*batch features"],
        scales: Float[Array, "*batch 1"],
    ) -> Float[Array, "*batch features"]:
        return scales * projected
