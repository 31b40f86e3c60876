from typing import ClassVar

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray

from ...arguments import NonNegativeFloat, PositiveInt
from ..constraints.sets import AbstractConstraint, Free
from ..domain import TokenDomain
from ..function_space import FunctionSpace
from ..shapes import State
from ..tree import with_fields
from .activations import Activation, gelu
from .linear import Linear
from .operator import AbstractOperator, check_features


class FeedForward(AbstractOperator):
    """Two integrals over features with a pointwise nonlinearity σ between:

        du/dt = W2 σ(W1 N(u) + b1) + b2,

    token by token; N is the input normalisation. With σ = ReLU, the projection on S2,
    it is a feed-forward of the paper (arXiv 2510.03989).

    **Arguments:**

    - `features`: width of the state.
    - `hidden`: width between the two maps. Default: `4 features`.
    - `activation`: σ, for example `relu`, `gelu` or `gelu_tanh`.
    - `normalization`: applied to the input; `LayerNorm` or `RMSNorm` gives the pre-norm form.
    - `bias`: whether b1 and b2 exist.
    - `std`, `output_std`: standard deviation of the initial W1, and of W2 (default: the same).
    """

    inner: Linear
    outer: Linear
    normalization: AbstractConstraint
    activation: Activation = eqx.field(static=True)

    pointwise: ClassVar[bool] = True

    def __init__(
        self,
        features: PositiveInt,
        hidden: PositiveInt | None = None,
        *,
        key: PRNGKeyArray,
        activation: Activation = gelu,
        normalization: AbstractConstraint = Free(),
        bias: bool = True,
        std: NonNegativeFloat = 0.02,
        output_std: NonNegativeFloat | None = None,
    ):
        hidden = 4 * features if hidden is None else hidden
        first, second = jax.random.split(key)
        output_std = std if output_std is None else output_std
        self.inner = Linear(features, hidden, bias=bias, std=std, key=first)
        self.outer = Linear(hidden, features, bias=bias, std=output_std, key=second)
        self.normalization = normalization
        self.activation = activation

    def at_points(self, space: FunctionSpace) -> "FeedForward":
        y, hidden = space.features, space.inner(self.inner.weight.shape[1])
        return with_fields(
            self,
            inner=self.inner.at_points(y, hidden),
            outer=self.outer.at_points(hidden, y),
            normalization=self.normalization.at_points(space),
        )

    def __call__(self, u: State, domain: TokenDomain) -> State:
        check_features(self, u, self.inner.weight.shape[0])
        v = self.normalization.project(u)
        return self.outer(self.activation(self.inner(v)))
