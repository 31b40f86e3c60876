"""Base classes of operators."""

import abc
from dataclasses import replace
from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, PyTree

from ...errors import InputError
from ..domain import TokenDomain
from ..function_space import FunctionSpace
from ..shapes import Depth, State


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
        the coefficients of kernels and functions of `space`.

        **Raises:** `InputError` for an operator whose weights are none.
        """
        raise InputError(
            f"{type(self).__name__} has no weights that are functions of the feature y, as "
            "Attention, FeedForward, GatedFeedForward and FeatureIntegral have; take one of "
            "these, or write at_points for it."
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
            f"shape {u.shape}: its last axis must be the features, [..., tokens, features]."
        )
