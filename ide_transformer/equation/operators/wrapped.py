"""Operators that scale the rate of another operator, or drop parts of it."""

from dataclasses import replace
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ...arguments import Fraction, checked
from ..arrays import Depth, State, affine, float_array
from ..domain import TokenDomain
from ..function_space import FunctionSpace
from .operator import (
    AbstractLinearOperator,
    AbstractOperator,
    AbstractWrappedExactOperator,
    AbstractWrappedOperator,
    Spectral,
    by_kind,
)


@checked
class Scaled(AbstractWrappedOperator):
    """An operator with its own step size, one for all features or one for each,

        du/dt = λ ⊙ A(u).

    A step h becomes λ h. With h = 1 it is the LayerScale of Touvron et al., arXiv 2103.17239.

    **Arguments:** `operator` A, and `rate` λ, a number or `[features]`.
    """

    rate: Float[Array, "*features"] = eqx.field(converter=float_array)

    # Whether λ may be `[features]`.
    each_feature: ClassVar[bool] = True

    def at_points(self, space: FunctionSpace) -> "Scaled":
        rate = space.features.of_factors(self.rate) if self.rate.ndim else self.rate
        return replace(self, operator=self.operator.at_points(space), rate=rate)

    def at(self, t: Depth, args: PyTree) -> "Scaled":
        return scale_operator(self.operator.at(t, args), self.rate)

    def __call__(self, u: State, domain: TokenDomain) -> State:
        return affine(self.operator(u, domain), self.rate.astype(u.dtype))


class ScaledExact(Scaled, AbstractWrappedExactOperator):
    """λ A with the flow of A over `λ h`, for an A with a known flow. λ is a number."""

    configurable: ClassVar[bool] = False
    each_feature: ClassVar[bool] = False

    def flow(self, u: State, domain: TokenDomain, h: Depth) -> State:
        return self.operator.flow(u, domain, self.rate.astype(u.dtype) * h)


class ScaledLinear(ScaledExact, AbstractLinearOperator):
    """λ A for a linear A. λ is a number."""

    operator: AbstractLinearOperator  # pyright: ignore[reportIncompatibleVariableOverride]

    def apply(self, function: Spectral, u: State, domain: TokenDomain) -> State:
        rate = self.rate.astype(u.dtype)
        return self.operator.apply(lambda eigenvalues: function(rate * eigenvalues), u, domain)


def scale_operator(operator: AbstractOperator, rate: Float[Array, "*features"]) -> Scaled:
    """λ A, with the flow of A if λ is a number."""
    if rate.ndim:
        return Scaled(operator, rate)
    return by_kind(operator, Scaled, ScaledExact, ScaledLinear)(operator, rate)


@checked
class Dropout(AbstractWrappedOperator):
    """Zeroes random entries of the rate of an operator, and scales up the rest:

        du/dt = m/(1-p) ⊙ A(u),   m ~ Bernoulli(1-p) for each token and feature.

    If A has a known flow, the mask applies to the change by the flow. The mask is drawn once in
    each interval, so all stages of a step see one field. Without a key nothing is dropped.

    **Arguments:** `operator` A, and `rate` p in [0, 1).
    """

    rate: Fraction = eqx.field(static=True)
    key: PRNGKeyArray | None = None

    configurable: ClassVar[bool] = False

    def at(self, t: Depth, args: PyTree) -> AbstractOperator:
        operator = self.operator.at(t, args)
        if self.key is None:
            return operator
        kind = by_kind(operator, _Dropped, _DroppedExact, _DroppedLinear)
        return kind(operator, self.rate, self.key)

    def __call__(self, u: State, domain: TokenDomain) -> State:
        return self.at(0.0, None)(u, domain)


class _Dropped(AbstractWrappedOperator):
    rate: float = eqx.field(static=True)
    key: PRNGKeyArray

    configurable: ClassVar[bool] = False

    def __call__(self, u: State, domain: TokenDomain) -> State:
        return drop(self.operator(u, domain), self.rate, self.key)


class _DroppedExact(_Dropped, AbstractWrappedExactOperator):
    def flow(self, u: State, domain: TokenDomain, h: Depth) -> State:
        return u + drop(self.operator.flow(u, domain, h) - u, self.rate, self.key)


class _DroppedLinear(_DroppedExact, AbstractLinearOperator):
    operator: AbstractLinearOperator  # pyright: ignore[reportIncompatibleVariableOverride]

    def apply(self, function: Spectral, u: State, domain: TokenDomain) -> State:
        # Exponential schemes then have the noise in the nonlinear part.
        return self.operator.apply(function, u, domain)


def drop(
    x: Float[Array, "*shape"], rate: float, key: PRNGKeyArray | None
) -> Float[Array, "*shape"]:
    """Zeroes a fraction `rate` of the entries of x and scales up the rest. Without a key it
    returns x."""
    if key is None or rate == 0:
        return x
    keep = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(keep, x / (1 - rate), 0)
