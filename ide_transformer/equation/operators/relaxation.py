from typing import ClassVar

from jaxtyping import Array, Float

from ..affine import Numbers, nonnegative_array
from ..domain import TokenDomain
from ..shapes import Depth, State
from .damping import Damping
from .exact import AbstractExactOperator
from .sourced import AbstractSourcedOperator


class Relaxation(AbstractExactOperator, AbstractSourcedOperator):
    """The state is drawn back to the input f of the equation,

        u_t = -λ ⊙ (u - f),   flow(u, h) = f + exp(-λ h) ⊙ (u - f).

    Added to operators A it gives the equation a steady state, `u = f + A(u)/λ`, stable for
    λ large enough.

    **Arguments:**

    - `rate`: λ ≥ 0, a number or `[features]`, per layer.
    - `source`: f; the control `Sourced` puts it in.
    """

    rate: Float[Array, "*features"]

    dissipative: ClassVar[bool] = True
    pointwise: ClassVar[bool] = True

    def __init__(self, rate: Numbers, source: State | None = None):
        self.rate = nonnegative_array(rate)
        self.source = source
        self.source_domain = None

    def __call__(self, u: State, domain: TokenDomain) -> State:
        return Damping(self.rate)(u - self.source_like(u), domain)

    def flow(self, u: State, domain: TokenDomain, h: Depth) -> State:
        f = self.source_like(u)
        return f + Damping(self.rate).flow(u - f, domain, h)
