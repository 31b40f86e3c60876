import equinox as eqx
from jaxtyping import Array, Float

from ..broadcast import along_features
from .constraint import AbstractConstraint
from .standardize import scale_to_unit_rms, scale_to_unit_rms_tangent, unit_rms_residual


class RMSSphere(AbstractConstraint):
    """The sphere of fixed root mean square, token by token:

        { u : mean_y (u/γ)² = 1 },   project(v) = v / sqrt(mean_y (v/γ)² + eps).

    With a scalar gain it is root-mean-square normalisation; with a vector, the map of
    existing checkpoints is `RMSNorm`.

    **Arguments:**

    - `gain`: γ, positive, a scalar or `[features]`.
    - `eps`: added to the mean square; 0 is the exact projection.
    """

    gain: Float[Array, " features"] | float = 1.0
    eps: float = eqx.field(static=True, default=0.0)

    def project(
        self, u: Float[Array, "*batch features"]
    ) -> Float[Array, "*batch features"]:
        gain = along_features(self.gain, u)
        return gain * scale_to_unit_rms(u / gain, self.eps)

    def tangent(
        self, u: Float[Array, "*batch features"], du: Float[Array, "*batch features"]
    ) -> Float[Array, "*batch features"]:
        gain = along_features(self.gain, u)
        return gain * scale_to_unit_rms_tangent(u / gain, du / gain, self.eps)

    def residual(self, u: Float[Array, "*batch features"]) -> Float[Array, "*batch"]:
        return unit_rms_residual(u / along_features(self.gain, u))
