from typing import ClassVar

from jaxtyping import PRNGKeyArray

from ...arguments import NonNegativeFloat, PositiveInt
from ..constraints.sets import AbstractConstraint, Free
from ..domain import TokenDomain
from ..function_space import FunctionSpace
from ..shapes import State
from ..tree import with_fields
from .linear import Linear
from .operator import AbstractOperator, check_features


class FeatureIntegral(AbstractOperator):
    """One integral over features, a single term of the feed-forward sum of the paper:

        du/dt = ⟨W(·,y), N(u)⟩_Ωy + b(y),

    token by token; N is the input normalisation. Reference: arXiv 2510.03989.

    **Arguments:**

    - `features`: width of the state.
    - `normalization`: applied to the input.
    - `bias`: whether b exists.
    - `std`: standard deviation of the initial W.
    - `output_std`: the same for an operator whose only map is that to the output; it takes
      the place of `std`.
    """

    map: Linear
    normalization: AbstractConstraint

    pointwise: ClassVar[bool] = True

    def __init__(
        self,
        features: PositiveInt,
        *,
        key: PRNGKeyArray,
        normalization: AbstractConstraint = Free(),
        bias: bool = True,
        std: NonNegativeFloat = 0.02,
        output_std: NonNegativeFloat | None = None,
    ):
        std = std if output_std is None else output_std
        self.map = Linear(features, features, bias=bias, std=std, key=key)
        self.normalization = normalization

    def at_points(self, space: FunctionSpace) -> "FeatureIntegral":
        y = space.features
        return with_fields(
            self,
            map=self.map.at_points(y, y),
            normalization=self.normalization.at_points(space),
        )

    def __call__(self, u: State, domain: TokenDomain) -> State:
        check_features(self, u, self.map.weight.shape[0])
        return self.map(self.normalization.project(u))
