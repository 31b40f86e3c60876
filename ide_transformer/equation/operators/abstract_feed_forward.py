"""The base class of the feed-forwards."""

import abc
from typing import TYPE_CHECKING, ClassVar

from jaxtyping import Array, Float

from ..constraints import AbstractConstraint
from ..domain import TokenDomain
from ..shapes import Features, State
from .activations import Activation
from .linear import Linear
from .operator import AbstractOperator, check_features


if TYPE_CHECKING:
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar


class AbstractFeedForward(AbstractOperator):
    """Hidden features of the normalised state, and a linear map of them,

        du/dt = W2 g(N(u)) + b2,

    token by token.
    """

    inner: AbstractVar[Linear]
    outer: AbstractVar[Linear]
    normalization: AbstractVar[AbstractConstraint]
    activation: AbstractVar[Activation]

    pointwise: ClassVar[bool] = True

    @abc.abstractmethod
    def hidden(self, v: Features) -> Float[Array, "*batch hidden"]:
        """g(v)."""

    def __call__(self, u: State, domain: TokenDomain) -> State:
        check_features(self, u, self.inner.weight.shape[0])
        return self.outer(self.hidden(self.normalization.project(u)))
