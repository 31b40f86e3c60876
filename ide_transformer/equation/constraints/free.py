from jaxtyping import Array, Float

from .constraint import AbstractConstraint


class Free(AbstractConstraint):
    """No constraint: S is the whole space, `u_t = F(u)`. As a normalisation: none."""

    def project(self, u: Float[Array, "*batch features"]) -> Float[Array, "*batch features"]:
        return u

    def tangent(
        self, u: Float[Array, "*batch features"], du: Float[Array, "*batch features"]
    ) -> Float[Array, "*batch features"]:
        return du

    def residual(self, u: Float[Array, "*batch features"]) -> Float[Array, "*batch"]:
        return abs(u[..., 0]) * 0
