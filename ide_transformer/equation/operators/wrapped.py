"""Operators that change the rate of another one."""

import abc
from dataclasses import replace
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ...arguments import Fraction, checked
from ...errors import InputError
from ..arrays import Depth, State, affine, float_array
from ..constraints import AbstractNormalization, AbstractSphere
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
    """An operator with a step size of its own, for all features or for each,

        du/dt = λ ⊙ A(u).

    A step of size h is then one of size λ h. With h = 1 it is the LayerScale of Touvron et
    al., arXiv 2103.17239.

    **Arguments:** `operator` A, and `rate` λ, a number or `[features]`.
    """

    rate: Float[Array, "*features"] = eqx.field(converter=float_array)

    # Whether λ may be one for each feature.
    each_feature: ClassVar[bool] = True

    def at_points(self, space: FunctionSpace) -> "Scaled":
        rate = space.features.of_factors(self.rate) if self.rate.ndim else self.rate
        return replace(self, operator=self.operator.at_points(space), rate=rate)

    def at(self, t: Depth, args: PyTree) -> "Scaled":
        return scaled(self.operator.at(t, args), self.rate)

    def __call__(self, u: State, domain: TokenDomain) -> State:
        return affine(self.operator(u, domain), self.rate.astype(u.dtype))


class ScaledExact(Scaled, AbstractWrappedExactOperator):
    """An operator with a known flow, whose flow over `λ h` is that of `λ A`; λ is a number."""

    configurable: ClassVar[bool] = False
    each_feature: ClassVar[bool] = False

    def flow(self, u: State, domain: TokenDomain, h: Depth) -> State:
        return self.operator.flow(u, domain, self.rate.astype(u.dtype) * h)


class ScaledLinear(ScaledExact, AbstractLinearOperator):
    """A linear operator times a number."""

    operator: AbstractLinearOperator  # pyright: ignore[reportIncompatibleVariableOverride]

    def apply(self, function: Spectral, u: State, domain: TokenDomain) -> State:
        rate = self.rate.astype(u.dtype)
        return self.operator.apply(lambda eigenvalues: function(rate * eigenvalues), u, domain)


def scaled(operator: AbstractOperator, rate: Float[Array, "*features"]) -> Scaled:
    """The operator times a number, of its own kind, or each feature times one."""
    if rate.ndim:
        return Scaled(operator, rate)
    return by_kind(operator, Scaled, ScaledExact, ScaledLinear)(operator, rate)


class AbstractRandomOperator(AbstractWrappedOperator):
    """An operator that changes the rate of another one at random, as its key says. Without a
    key it is the other one, with a flow that this may know."""

    rate: Fraction = eqx.field(static=True)
    key: PRNGKeyArray | None = None

    configurable: ClassVar[bool] = False
    # Whether all operators of a block have the same draw.
    one_draw: ClassVar[bool] = False

    @abc.abstractmethod
    def drawn(self, operator: AbstractOperator, key: PRNGKeyArray) -> AbstractOperator:
        """The operator with the draw of that key."""

    def at(self, t: Depth, args: PyTree) -> AbstractOperator:
        operator = self.operator.at(t, args)
        return operator if self.key is None else self.drawn(operator, self.key)

    def __call__(self, u: State, domain: TokenDomain) -> State:
        operator = self.operator
        return (operator if self.key is None else self.drawn(operator, self.key))(u, domain)


@checked
class Dropout(AbstractRandomOperator):
    """An operator whose rate is zeroed at random places, and scaled up at the others:

        du/dt = m/(1-p) ⊙ A(u),   m ~ Bernoulli(1-p) for each token and feature.

    Of one with a known flow the change of the state by that flow is, in the place of its rate.
    The mask is drawn once for each interval, so that all stages of a step see one field.
    Without a key the operator is unchanged.

    **Arguments:** `operator` A, and `rate` p in [0, 1).
    """

    def drawn(self, operator: AbstractOperator, key: PRNGKeyArray) -> AbstractOperator:
        kind = by_kind(operator, _Dropped, _DroppedExact, _DroppedLinear)
        return kind(operator, self.rate, key)


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
        # For exponential schemes the noise is a part of what is not linear.
        return self.operator.apply(function, u, domain)


def drop(
    x: Float[Array, "*shape"], rate: float, key: PRNGKeyArray | None
) -> Float[Array, "*shape"]:
    """`x` with a fraction `rate` of its entries zeroed, the rest scaled; only with a key."""
    if key is None or rate == 0:
        return x
    keep = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(keep, x / (1 - rate), 0)


@checked
class LayerDrop(AbstractRandomOperator):
    """An operator that is left out of whole intervals at random:

        du/dt = m A(u),   m ~ Bernoulli(1-p), one draw for all tokens, features and samples.

    All operators of a block are left out together, so that a layer does nothing. A model that
    is trained so can be solved with some of its layers only. Without a key the operator is
    unchanged. Source: Fan, Grave, Joulin, "Reducing transformer depth on demand with structured
    dropout", 2020, arXiv 1909.11556.

    **Arguments:** `operator` A, and `rate` p in [0, 1).
    """

    one_draw: ClassVar[bool] = True

    def drawn(self, operator: AbstractOperator, key: PRNGKeyArray) -> AbstractOperator:
        return scaled(operator, jax.random.bernoulli(key, 1.0 - self.rate).astype(float))


@checked
class LayerNormScaling(AbstractWrappedOperator):
    """An operator whose normalisation shrinks with depth,

        du/dt = A(P(u) / sqrt(1 + t)),

    P its normalisation with gain and bias. Layers of length 1 that are solved by Euler's
    method see t = l - 1, so P / √l in layer l. Where A is linear in P(u) this is a step of
    length 1/√l. Reference: Sun et al., The Curse of Depth, arXiv 2502.05795.

    **Arguments:** `operator`, with the `normalization` `LayerNorm` or `RMSNorm`.
    """

    def __check_init__(self):
        innermost = self.operator.innermost
        normalization = getattr(innermost, "normalization", None)
        # A sphere measures its input in units of gain and bias, which are not to change.
        known = isinstance(normalization, AbstractNormalization)
        if not known or isinstance(normalization, AbstractSphere):
            raise InputError(
                f"LayerNormScaling: {type(innermost).__name__} has "
                f"normalization={normalization}; give an operator with LayerNorm or RMSNorm."
            )

    def at(self, t: Depth, args: PyTree) -> "LayerNormScaling":
        factor = 1 / jnp.sqrt(1 + jnp.asarray(t, jnp.result_type(float)))
        operator = eqx.tree_at(
            lambda x: x.innermost.normalization,
            self.operator.at(t, args),
            replace_fn=lambda normalization: normalization.times(factor),
        )
        return replace(self, operator=operator)

    def __call__(self, u: State, domain: TokenDomain) -> State:
        return self.operator(u, domain)
