"""Base classes of operators."""

import abc
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, TypeAlias, TypeVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ...errors import InputError
from ..arrays import Depth, State
from ..domain import TokenDomain
from ..function_space import FunctionSpace
from ..tree import with_fields


if TYPE_CHECKING:
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar


class AbstractOperator(eqx.Module):
    """One term of the right-hand side at one depth: a pure map `u ↦ du/dt`.

    Subclass it with arrays as fields (the weights at that depth) and a `__call__`. A
    subclass works everywhere; nothing has to be registered.
    """

    # Whether the rate at a token depends on the state at that token only, so that tokens can
    # be marched one after the other.
    pointwise: ClassVar[bool] = False
    # Whether a configuration may name it.
    configurable: ClassVar[bool] = True

    @abc.abstractmethod
    def __call__(self, u: State, domain: TokenDomain) -> State:
        """The rate `du/dt` of this term, of the shape of `u: [..., tokens, features]`."""

    def at(self, t: Depth, args: PyTree) -> "AbstractOperator":
        """The operator at depth `t`, given the `args` of `solve`; by default the same
        everywhere. One that depends on them returns a copy that holds what it needs."""
        return self

    def at_points(self, space: FunctionSpace) -> "AbstractOperator":
        """The operator on functions of a feature, at the points of Ω_y: its weights are read as
        the coefficients of kernels and functions of `space`."""
        raise InputError(
            f"{type(self).__name__} has no weights that are functions of the feature y; write "
            "at_points for it, or take another, such as Attention or FeedForward."
        )

    @property
    def innermost(self) -> "AbstractOperator":
        """The operator itself, without others around it."""
        return self


class AbstractWrappedOperator(AbstractOperator):
    """An operator that changes the rate of another one, feature by feature."""

    operator: AbstractOperator

    def at(self, t: Depth, args: PyTree) -> "AbstractWrappedOperator":
        return replace(self, operator=self.operator.at(t, args))

    def at_points(self, space: FunctionSpace) -> "AbstractWrappedOperator":
        return replace(self, operator=self.operator.at_points(space))

    @property
    def pointwise(self) -> bool:
        return self.operator.pointwise

    @property
    def innermost(self) -> AbstractOperator:
        return self.operator.innermost


def check_features(operator: object, u: Array, features: int) -> None:
    """Refuses a state whose last axis is not the features that the weights act on."""
    if u.shape[-1] != features:
        raise InputError(
            f"{type(operator).__name__} acts on {features} features, but the state has "
            f"shape {u.shape}."
        )


Kind = TypeVar("Kind")
# A function of the eigenvalues of an operator, entry by entry.
Spectral: TypeAlias = Callable[[Array], Array]


class AbstractExactOperator(AbstractOperator):
    """An operator that knows the flow of `u_t = A(u)`; splitting schemes use it in the
    place of their sub-solver."""

    # Whether the flow backwards in depth amplifies without bound, so that schemes with
    # negative sub-steps cannot use it.
    dissipative: AbstractVar[bool]

    @abc.abstractmethod
    def flow(self, u: State, domain: TokenDomain, h: Depth) -> State:
        """The solution of `u_t = A(u)` a depth `h` after `u`."""


class AbstractLinearOperator(AbstractExactOperator):
    """A linear operator A that is diagonal in a basis which it knows, so that any function
    of it can be applied: its flow is `exp(h A)`, and exponential schemes need φ_k(h A)."""

    @abc.abstractmethod
    def apply(self, function: Spectral, u: State, domain: TokenDomain) -> State:
        """`function(A) u`, by applying `function` to the eigenvalues of A."""

    def __call__(self, u: State, domain: TokenDomain) -> State:
        return self.apply(lambda eigenvalues: eigenvalues, u, domain)

    def flow(self, u: State, domain: TokenDomain, h: Depth) -> State:
        return self.apply(lambda eigenvalues: jnp.exp(h * eigenvalues), u, domain)


class AbstractWrappedExactOperator(AbstractWrappedOperator, AbstractExactOperator):
    """An operator that changes the rate of another one, whose flow is known."""

    operator: AbstractExactOperator  # pyright: ignore[reportIncompatibleVariableOverride]

    @property
    def dissipative(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.operator.dissipative


def by_kind(operator: object, plain: Kind, exact: Kind, linear: Kind) -> Kind:
    """One of three, by the kind of an operator from which schemes choose how to treat it."""
    if isinstance(operator, AbstractLinearOperator):
        return linear
    return exact if isinstance(operator, AbstractExactOperator) else plain


class AbstractSourcedOperator(AbstractOperator):
    """An operator `A(u; f)` of the state and of a source f, which is the same at all depths.

    The source is either the input of the equation, the state at depth 0, or a function on a
    domain of its own, such as the states of an encoder; an operator sees one of the two. The
    control `Sourced` puts f in; models do so by themselves.
    """

    source: State | None
    source_domain: TokenDomain | None

    # Whether f has a domain of its own, not that of the state.
    own_domain: ClassVar[bool] = False
    # The rest of the error where f is missing.
    missing: ClassVar[str] = (
        "has no source f; wrap the control: Equation(Sourced(control, u0), constraint, "
        "domain). Models do so themselves."
    )

    def with_source(
        self, source: State, domain: TokenDomain | None = None
    ) -> "AbstractSourcedOperator":
        """Put f into the operator, `domain` its own if it is not that of the state; a source
        that the operator does not see changes nothing."""
        if self.own_domain != (domain is not None):
            return self
        return with_fields(self, source=source, source_domain=domain)

    def given_source(self) -> State:
        """f, if one was put in."""
        if self.source is None:
            raise InputError(f"{type(self).__name__} {self.missing}")
        return self.source

    def source_like(self, u: State) -> State:
        """f, for each token of the state, in its shape."""
        f = self.given_source()
        if f.shape not in (u.shape, u.shape[-2:]):
            raise InputError(
                f"{type(self).__name__}: the source has shape {f.shape}, but the state has "
                f"{u.shape}."
            )
        return jnp.broadcast_to(f, u.shape)


# From M of the tokens of a domain, and the domain, to M of all tokens that can be seen, and
# their domain.
Others: TypeAlias = Callable[[PyTree[Array], TokenDomain], tuple[PyTree[Array], TokenDomain]]


class AbstractTokenIntegral(AbstractOperator):
    """An integral operator over tokens, which sees a map M of the other tokens only,

        A(u)(x) = R(u(x), M(u(x')) for x' ∈ Ω_x(x)).

    For attention, M gives keys and values. Where Ω_x(x) holds no tokens after x, M of the
    tokens so far does not change, so a march can keep it and go on with new tokens alone.
    """

    @property
    @abc.abstractmethod
    def causal(self) -> bool:
        """Whether Ω_x(x) holds no x' after x."""

    @abc.abstractmethod
    def over(self, u: State, domain: TokenDomain, others: Others) -> State:
        """The rate, integrated over more tokens than those of u: `others` is called once, with
        `M(u)`, arrays `[..., tokens, …]`, and the domain of u, and gives M of all tokens over
        which the integral runs, and their domain."""

    def __call__(self, u: State, domain: TokenDomain) -> State:
        return self.over(u, domain, lambda own, domain: (own, domain))
