from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..affine import affine, float_array
from ..depth import Depth
from ..domain import TokenDomain
from .exact import AbstractExactOperator
from .sourced import AbstractSourcedOperator


class Relaxation(AbstractExactOperator, AbstractSourcedOperator):
    """The state is drawn back to the input f of the equation,

        u_t = -λ ⊙ (u - f),   flow(u, h) = f + exp(-λ h) ⊙ (u - f).

    Added to operators A it gives the equation a steady state, `u = f + A(u)/λ`, stable for
    λ large enough.

    **Arguments:**

    - `rate`: λ ≥ 0, a number or `[features]`, per layer.
    """

    rate: Float[Array, "*features"] = eqx.field(converter=float_array)
    source: Float[Array, "*batch tokens features"] | None = None

    dissipative: ClassVar[bool] = True
    pointwise: ClassVar[bool] = True

    def __call__(
        self, u: Float[Array, "*batch tokens features"], domain: TokenDomain
    ) -> Float[Array, "*batch tokens features"]:
        return affine(self.given_source() - u, self.rate.astype(u.dtype), None)

    def flow(
        self, u: Float[Array, "*batch tokens features"], domain: TokenDomain, h: Depth
    ) -> Float[Array, "*batch tokens features"]:
        f = self.given_source()
        return f + affine(u - f, jnp.exp(-h * self.rate).astype(u.dtype), None)
