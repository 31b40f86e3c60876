"""Operators that act on each feature alone: damping and sources."""

from typing import Annotated, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...arguments import above, checked
from ..arrays import Depth, Numbers, State, affine, float_array, nonnegative_array
from ..domain import TokenDomain
from .operator import (
    AbstractExactOperator,
    AbstractLinearOperator,
    AbstractSourcedOperator,
    Spectral,
)


@checked
class Damping(AbstractLinearOperator):
    """Linear damping, feature by feature:

        u_t = -λ ⊙ u,   flow(u, h) = exp(-λ h) ⊙ u.

    **Arguments:** `rate`, λ ≥ 0, a number or `[features]`, per layer.
    """

    rate: Float[Array, "*features"] = eqx.field(converter=nonnegative_array)

    dissipative: ClassVar[bool] = True
    pointwise: ClassVar[bool] = True

    def apply(self, function: Spectral, u: State, domain: TokenDomain) -> State:
        return affine(u, function(-self.rate.astype(u.dtype)))


@checked
class StableDamping(AbstractLinearOperator):
    """Linear damping that stays positive in training; the weight is a = log λ:

        u_t = -λ ⊙ u,   λ = e^a,   flow(u, h) = exp(-λ h) ⊙ u.

    With an `Injection` the state stays bounded at any depth. Reference: Parcae, arXiv
    2604.12946.

    **Arguments:** `rate`, the initial λ > 0, a number or `[features]`, per layer.
    """

    log_rate: Float[Array, "*features"]

    dissipative: ClassVar[bool] = True
    pointwise: ClassVar[bool] = True

    def __init__(self, rate: Annotated[Numbers, above(0)]):
        self.log_rate = jnp.log(float_array(rate))

    @property
    def rate(self) -> Float[Array, "*features"]:
        return jnp.exp(self.log_rate)

    def apply(self, function: Spectral, u: State, domain: TokenDomain) -> State:
        return Damping(self.rate).apply(function, u, domain)


@checked
class Injection(AbstractSourcedOperator):
    """Adds the input f of the equation at every depth, feature by feature:

        u_t = κ ⊙ f.

    The state grows with depth unless something damps it. With `StableDamping` of rate λ,
    `ExponentialEuler` makes the step `e^{-hλ} u + h φ_1(-hλ) (κ ⊙ f + A(u))` of Parcae, arXiv
    2604.12946.

    **Arguments:** `rate`, κ, a number or `[features]`, per layer; `source`, f, inserted by the
    control `Sourced`.
    """

    rate: Float[Array, "*features"]

    pointwise: ClassVar[bool] = True

    def __init__(self, rate: Numbers = 1.0, source: State | None = None):
        self.rate = float_array(rate)
        self.source = source
        self.source_domain = None

    def __call__(self, u: State, domain: TokenDomain) -> State:
        return affine(self.source_like(u), self.rate.astype(u.dtype))


@checked
class Relaxation(AbstractExactOperator, AbstractSourcedOperator):
    """The state relaxes to the input f of the equation,

        u_t = -λ ⊙ (u - f),   flow(u, h) = f + exp(-λ h) ⊙ (u - f).

    With operators A the equation has a steady state `u = f + A(u)/λ`, stable for large λ.

    **Arguments:** `rate`, λ ≥ 0, a number or `[features]`, per layer; `source`, f, inserted by
    the control `Sourced`.
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
