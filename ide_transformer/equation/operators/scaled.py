import equinox as eqx
from jaxtyping import Array, Float

from ..affine import affine, float_array
from ..domain import TokenDomain
from .operator import AbstractOperator


class Scaled(AbstractOperator):
    """An operator whose rate is scaled, as a whole or feature by feature:

        du/dt = λ ⊙ A(u).

    A step of size h then is one of size λ h, so intervals of unequal length fit on a mesh of
    equal ones.

    **Arguments:**

    - `operator`: A.
    - `rate`: λ, a number or `[features]`.
    """

    operator: AbstractOperator
    rate: Float[Array, "*features"] = eqx.field(converter=float_array)

    def __call__(
        self, u: Float[Array, "*batch tokens features"], domain: TokenDomain
    ) -> Float[Array, "*batch tokens features"]:
        return affine(self.operator(u, domain), self.rate.astype(u.dtype), None)
