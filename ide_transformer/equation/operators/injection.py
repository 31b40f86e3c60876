from typing import ClassVar

from jaxtyping import Array, Float

from ..affine import Numbers, affine, float_array
from ..domain import TokenDomain
from ..shapes import State
from .sourced import AbstractSourcedOperator


class Injection(AbstractSourcedOperator):
    """The input f of the equation enters at every depth, feature by feature:

        u_t = κ ⊙ f.

    The state grows with depth unless something damps it. With `StableDamping` of rate λ it
    stays bounded, and `ExponentialEuler` makes the step `e^{-hλ} u + h φ_1(-hλ) (κ ⊙ f + A(u))`
    of Parcae, arXiv 2604.12946.

    **Arguments:**

    - `rate`: κ, a number or `[features]`, per layer.
    - `source`: f; the control `Sourced` puts it in.
    """

    rate: Float[Array, "*features"]

    pointwise: ClassVar[bool] = True

    def __init__(self, rate: Numbers = 1.0, source: State | None = None):
        self.rate = float_array(rate)
        self.source = source
        self.source_domain = None

    def __call__(self, u: State, domain: TokenDomain) -> State:
        f = self.source_like(u)
        return affine(f, self.rate.astype(u.dtype), None)
