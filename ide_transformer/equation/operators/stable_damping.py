from typing import Annotated, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from ...arguments import AboveZero
from ..affine import Numbers, affine, float_array
from ..domain import TokenDomain
from ..shapes import State
from .exact import AbstractLinearOperator, Spectral


class StableDamping(AbstractLinearOperator):
    """Damping whose rate stays positive in training, since its logarithm is the weight:

        u_t = -λ ⊙ u,   λ = e^a,   flow(u, h) = exp(-λ h) ⊙ u.

    The diagonal of the linear part is then negative whatever the optimizer does, so that a
    state into which the input is injected stays bounded at any depth. Reference: Parcae,
    arXiv 2604.12946.

    **Arguments:**

    - `rate`: the initial λ > 0, a number or `[features]`, per layer.
    """

    log_rate: Float[Array, "*features"]

    dissipative: ClassVar[bool] = True
    pointwise: ClassVar[bool] = True

    def __init__(self, rate: Annotated[Numbers, AboveZero]):
        self.log_rate = jnp.log(float_array(rate))

    @property
    def rate(self) -> Float[Array, "*features"]:
        """λ."""
        return jnp.exp(self.log_rate)

    def apply(self, function: Spectral, u: State, domain: TokenDomain) -> State:
        return affine(u, function(-self.rate.astype(u.dtype)), None)
