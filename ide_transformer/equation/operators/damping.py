from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, Float

from ..affine import affine, nonnegative_array
from ..domain import TokenDomain
from ..shapes import State
from .exact import AbstractLinearOperator, Spectral


class Damping(AbstractLinearOperator):
    """Linear damping, feature by feature:

        u_t = -λ ⊙ u,   flow(u, h) = exp(-λ h) ⊙ u.

    **Arguments:**

    - `rate`: λ ≥ 0, a number or `[features]`, per layer.
    """

    rate: Float[Array, "*features"] = eqx.field(converter=nonnegative_array)

    dissipative: ClassVar[bool] = True
    pointwise: ClassVar[bool] = True

    def apply(self, function: Spectral, u: State, domain: TokenDomain) -> State:
        return affine(u, function(-self.rate.astype(u.dtype)), None)
