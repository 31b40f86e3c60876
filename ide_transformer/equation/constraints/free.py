from jaxtyping import Array, Float

from ..shapes import Features
from .constraint import AbstractRescaling, Scales


class Free(AbstractRescaling):
    """No constraint: S is the whole space, `u_t = F(u)`. As a normalisation: none."""

    def project(self, u: Features) -> Features:
        return u

    def tangent(self, u: Features, du: Features) -> Features:
        return du

    def residual(self, u: Features) -> Float[Array, "*batch"]:
        return abs(u[..., 0]) * 0

    def scales(self, u: Features) -> Scales:
        return ()

    def unproject(self, projected: Features, scales: Scales) -> Features:
        return projected
