from jaxtyping import Array, Float

from .constraint import AbstractRescaling


class Free(AbstractRescaling):
    """No constraint: S is the whole space, `u_t = F(u)`. As a normalisation: none."""

    def project(self, u: Float[Array, "*batch features"]) -> Float[Array, "*batch features"]:
        return u

    def tangent(
        self, u: Float[Array, "*batch features"], du: Float[Array, "*batch features"]
    ) -> Float[Array, "*batch features"]:
        return du

    def residual(self, u: Float[Array, "*batch features"]) -> Float[Array, "*batch"]:
        return abs(u[..., 0]) * 0

    def scales(self, u: Float[Array, "*batch features"]) -> tuple[()]:
        return ()

    def unproject(
        self, projected: Float[Array, "*batch features"], scales: tuple[()]
    ) -> Float[Array, "*batch features"]:
        return projected
