from dataclasses import replace

import equinox as eqx
from jaxtyping import Array, Float

from ..affine import affine, float_array
from ..domain import TokenDomain
from ..function_space import FunctionSpace
from ..shapes import State
from .operator import AbstractWrappedOperator


class Scaled(AbstractWrappedOperator):
    """An operator with a step size of its own, for all features or for each,

        du/dt = λ ⊙ A(u).

    A step of size h is then one of size λ h. With h = 1 it is the LayerScale of Touvron et
    al., arXiv 2103.17239.

    **Arguments:**

    - `operator`: A.
    - `rate`: λ, a number or `[features]`.
    """

    rate: Float[Array, "*features"] = eqx.field(converter=float_array)

    def at_points(self, space: FunctionSpace) -> "Scaled":
        rate = space.features.of_factors(self.rate) if self.rate.ndim else self.rate
        return replace(self, operator=self.operator.at_points(space), rate=rate)

    def __call__(self, u: State, domain: TokenDomain) -> State:
        return affine(self.operator(u, domain), self.rate.astype(u.dtype), None)
