from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, Float

from ...errors import InputError
from ..affine import affine, float_array
from ..domain import TokenDomain
from ..shapes import State
from .exact import AbstractLinearOperator, Spectral


class Damping(AbstractLinearOperator):
    """Linear damping, feature by feature:

        u_t = -λ ⊙ u,   flow(u, h) = exp(-λ h) ⊙ u.

    **Arguments:**

    - `rate`: λ ≥ 0, a number or `[features]`, per layer.
    """

    rate: Float[Array, "*features"] = eqx.field(converter=float_array)

    dissipative: ClassVar[bool] = True
    pointwise: ClassVar[bool] = True

    def apply(self, function: Spectral, u: State, domain: TokenDomain) -> State:
        if self.rate.shape not in ((), u.shape[-1:]):
            raise InputError(
                f"Damping.rate has shape {self.rate.shape}; the state has {u.shape[-1]} "
                "features, so it must be a number or [features]."
            )
        return affine(u, function(-self.rate.astype(u.dtype)), None)
