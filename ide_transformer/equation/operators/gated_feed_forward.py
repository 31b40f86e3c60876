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
from .activations import Activation, silu
from .linear import Linear
from .operator import AbstractOperator, check_features


class GatedFeedForward(AbstractOperator):
    """A feed-forward whose hidden features are gated:

        du/dt = W2 (σ(Wg N(u)) ⊙ W1 N(u)),

    token by token; N is the input normalisation. σ = SiLU gives SwiGLU (Shazeer, arXiv
    2002.05202).

    **Arguments:**

    - `features`: width of the state.
    - `hidden`: width between the maps. Default: `8 features / 3` rounded up to a multiple
      of 8, which keeps the number of weights of an ungated one.
    - `activation`: σ.
    - `normalization`: applied to the input; `LayerNorm` or `RMSNorm` gives the pre-norm form.
    - `bias`: whether the three maps have biases.
    - `std`, `output_std`: standard deviation of the initial weights, and of W2 (default:
      the same).
    """

    gate: Linear
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
        activation: Activation = silu,
        bias: bool = False,
        normalization: AbstractConstraint = Free(),
        std: NonNegativeFloat = 0.02,
        output_std: NonNegativeFloat | None = None,
        key: PRNGKeyArray,
    ):
        hidden = 8 * (-(-features // 3)) if hidden is None else hidden
        keys = jax.random.split(key, 3)
        output_std = std if output_std is None else output_std
        self.gate = Linear(features, hidden, bias=bias, std=std, key=keys[0])
        self.inner = Linear(features, hidden, bias=bias, std=std, key=keys[1])
        self.outer = Linear(hidden, features, bias=bias, std=output_std, key=keys[2])
        self.normalization = normalization
        self.activation = activation

    def at_points(self, space: FunctionSpace) -> "GatedFeedForward":
        y, hidden = space.features, space.inner(self.inner.weight.shape[1])
        return with_fields(
            self,
            gate=self.gate.at_points(y, hidden),
            inner=self.inner.at_points(y, hidden),
            outer=self.outer.at_points(hidden, y),
            normalization=self.normalization.at_points(space),
        )

    def __call__(self, u: State, domain: TokenDomain) -> State:
        check_features(self, u, self.inner.weight.shape[0])
        v = self.normalization.project(u)
        return self.outer(self.activation(self.gate(v)) * self.inner(v))
