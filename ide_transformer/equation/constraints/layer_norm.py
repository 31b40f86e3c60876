import equinox as eqx
from jaxtyping import Array, Float

from ..affine import affine, inverse_affine, optional_array
from .constraint import AbstractRescaling
from .standardize import (
    mean_and_deviation,
    standardize,
    standardize_tangent,
    standardized_residual,
)


class LayerNorm(AbstractRescaling):
    """Layer normalisation as checkpoints define it,

        project(v) = β + γ (v-α) / sqrt(var + eps),

    with α and var the mean and variance of v over features (Ba, Kiros, Hinton, arXiv
    1607.06450). Before an operator it is the pre-norm; as the constraint of an equation
    solved with steps h = 1 it is the post-norm of the original Transformer.

    It maps onto `Sphere(gain, bias)`. With a gain or bias that varies over features it
    moves the states that are already there, hence has no limit as h → 0: refine such an
    equation with `Sphere` instead.

    **Arguments:**

    - `gain`: γ, a number or `[features]`.
    - `bias`: β, a number or `[features]`.
    - `eps`: added to the variance.
    """

    gain: Float[Array, "*features"] | None = eqx.field(converter=optional_array, default=None)
    bias: Float[Array, "*features"] | None = eqx.field(converter=optional_array, default=None)
    eps: float = eqx.field(static=True, default=1e-5)

    def project(self, u: Float[Array, "*batch features"]) -> Float[Array, "*batch features"]:
        return affine(standardize(u, self.eps), self.gain, self.bias)

    def tangent(
        self, u: Float[Array, "*batch features"], du: Float[Array, "*batch features"]
    ) -> Float[Array, "*batch features"]:
        return affine(standardize_tangent(u, du, self.eps), self.gain, None)

    def residual(self, u: Float[Array, "*batch features"]) -> Float[Array, "*batch"]:
        return standardized_residual(inverse_affine(u, self.gain, self.bias))

    def scales(
        self, u: Float[Array, "*batch features"]
    ) -> tuple[Float[Array, "*batch 1"], Float[Array, "*batch 1"]]:
        return mean_and_deviation(u, self.eps)

    def unproject(
        self,
        projected: Float[Array, "*batch features"],
        scales: tuple[Float[Array, "*batch 1"], Float[Array, "*batch 1"]],
    ) -> Float[Array, "*batch features"]:
        mean, deviation = scales
        return mean + deviation * inverse_affine(projected, self.gain, self.bias)
