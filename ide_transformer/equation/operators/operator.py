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

    A subclass has its weights at that depth as fields, and a `__call__`. Nothing has to be
    registered.
    """

    # Whether the rate of a token depends on that token only.
    pointwise: ClassVar[bool] = False
    # Whether a configuration may name it.
    configurable: ClassVar[bool] = True

    @abc.abstractmethod
    def __call__(self, u: State, domain: TokenDomain) -> State:
        """The rate `du/dt`, in the shape of `u: [..., tokens, features]`."""

    def at(self, t: Depth, args: PyTree) -> "AbstractOperator":
        """The operator at depth `t`, with the `args` of `solve`. Override it to return a copy
        that depends on them."""
        return self

    def at_points(self, space: FunctionSpace) -> "AbstractOperator":
        """The operator on functions of a feature, reading its weights as coefficients of
        kernels in `space`, at the points of Ω_y."""
        raise InputError(
            f"{type(self).__name__} does not act on functions of a feature; define its method "
            "at_points."
        )

    @property
    def innermost(self) -> "AbstractOperator":
        """The operator inside all wrappers."""
        return self


class AbstractWrappedOperator(AbstractOperator):
    """An operator that changes the rate of another operator, feature by feature."""

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
    if u.shape[-1] != features:
        raise InputError(
            f"{type(operator).__name__}: got a state {u.shape}, expected {features} features."
        )


def check_source(operator: object, source: Array, *shapes: tuple[int, ...]) -> None:
    if source.shape not in shapes:
        raise InputError(
            f"{type(operator).__name__}: got a source {source.shape}, expected {shapes[0]} by "
            "the state, the domain of the source and the weights."
        )


Kind = TypeVar("Kind")
# A function of the eigenvalues of an operator, entry by entry.
Spectral: TypeAlias = Callable[[Array], Array]


class AbstractExactOperator(AbstractOperator):
    """An operator with a known flow of `u_t = A(u)`, which splitting schemes use instead of
    their sub-solver."""

    # Whether the backward flow is unbounded, which forbids negative sub-steps.
    dissipative: AbstractVar[bool]

    @abc.abstractmethod
    def flow(self, u: State, domain: TokenDomain, h: Depth) -> State:
        """The solution of `u_t = A(u)` at depth h, from `u` at depth 0."""


class AbstractLinearOperator(AbstractExactOperator):
    """A linear operator A that is diagonal in a known basis. Its flow is `exp(h A)`, and
    exponential schemes apply φ_k(h A)."""

    @abc.abstractmethod
    def apply(self, function: Spectral, u: State, domain: TokenDomain) -> State:
        """`function(A) u`: applies `function` to the eigenvalues of A."""

    def __call__(self, u: State, domain: TokenDomain) -> State:
        return self.apply(lambda eigenvalues: eigenvalues, u, domain)

    def flow(self, u: State, domain: TokenDomain, h: Depth) -> State:
        return self.apply(lambda eigenvalues: jnp.exp(h * eigenvalues), u, domain)


class AbstractWrappedExactOperator(AbstractWrappedOperator, AbstractExactOperator):
    """A wrapped operator with a known flow."""

    operator: AbstractExactOperator  # pyright: ignore[reportIncompatibleVariableOverride]

    @property
    def dissipative(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.operator.dissipative


def by_kind(operator: object, plain: Kind, exact: Kind, linear: Kind) -> Kind:
    """Chooses `linear`, `exact` or `plain` by the class of an operator."""
    if isinstance(operator, AbstractLinearOperator):
        return linear
    return exact if isinstance(operator, AbstractExactOperator) else plain


class AbstractSourcedOperator(AbstractOperator):
    """An operator `A(u; f)` of the state and a source f that is equal at all depths: the state
    at depth 0, or a function on a second domain, such as the states of an encoder. The control
    `Sourced`, which models use by themselves, inserts f.
    """

    source: State | None
    source_domain: TokenDomain | None

    # Whether f is on a second domain.
    on_second_domain: ClassVar[bool] = False
    # The end of the error if f is missing.
    missing: ClassVar[str] = "has no source f; use Sourced(control, u0), as models do."

    def with_source(
        self, source: State, domain: TokenDomain | None = None
    ) -> "AbstractSourcedOperator":
        """Inserts f, on a second `domain` or on the domain of the state. Does nothing if the
        operator has its source on the other of the two."""
        if self.on_second_domain != (domain is not None):
            return self
        return with_fields(self, source=source, source_domain=domain)

    def require_source(self) -> State:
        """f; raises `InputError` if it is missing."""
        if self.source is None:
            raise InputError(f"{type(self).__name__} {self.missing}")
        return self.source

    def source_like(self, u: State) -> State:
        """f in the shape of the state."""
        f = self.require_source()
        check_source(self, f, u.shape, u.shape[-2:])
        return jnp.broadcast_to(f, u.shape)


# Maps M of some tokens, and their domain, to M of all visible tokens, and their domain.
Gather: TypeAlias = Callable[[PyTree[Array], TokenDomain], tuple[PyTree[Array], TokenDomain]]


class AbstractTokenIntegral(AbstractOperator):
    """An integral operator over tokens that sees other tokens only through a map M,

        A(u)(x) = R(u(x), M(u(x')) for x' ∈ Ω_x(x)).

    For attention, M gives keys and values. If the operator is causal, new tokens do not change
    M of earlier ones, so a march can cache it.
    """

    @property
    @abc.abstractmethod
    def causal(self) -> bool:
        """Whether Ω_x(x) holds no x' after x."""

    @abc.abstractmethod
    def over(self, u: State, domain: TokenDomain, gather: Gather) -> State:
        """The rate of u, integrated over all tokens that `gather` returns. Calls `gather` once,
        with `M(u)`, arrays `[..., tokens, …]`, and the domain of u."""

    def __call__(self, u: State, domain: TokenDomain) -> State:
        return self.over(u, domain, lambda arrays, domain: (arrays, domain))
