"""Feed-forwards: integrals over features `⟨W(·,y), u(x,·)⟩_Ωy + b(y)`, and activations."""

import abc
import math
from collections.abc import Callable
from typing import ClassVar, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from ...arguments import NonNegativeFloat, PositiveInt, checked
from ..arrays import State, affine
from ..constraints import AbstractConstraint, Free
from ..devices import token_devices
from ..domain import TokenDomain
from ..function_space import FeatureMap, FunctionSpace
from ..tree import with_fields
from .operator import AbstractOperator, check_features


Activation: TypeAlias = Callable[[Array], Array]


@checked
class Linear(eqx.Module):
    """`u ↦ u W + b`, `W: [in, out]`, `b: [out]`, or no bias."""

    weight: Float[Array, "in out"]
    bias: Float[Array, " out"] | None

    def __init__(
        self,
        features_in: PositiveInt,
        features_out: PositiveInt,
        *,
        key: PRNGKeyArray,
        bias: bool = True,
        std: NonNegativeFloat = 0.02,
    ):
        self.weight = std * jax.random.normal(key, (features_in, features_out))
        self.bias = jnp.zeros(features_out) if bias else None

    def at_points(self, into: FeatureMap, out: FeatureMap) -> "Linear":
        """The integral `∫ W(·, ξ) u(ξ) dξ + b` from functions of `into` to functions of `out`,
        reading the weights as coefficients."""
        weight = into.of_duals(out.of_values(self.weight).T).T
        bias = None if self.bias is None else out.of_values(self.bias)
        return with_fields(self, weight=weight, bias=bias)

    def times(self, factor: float) -> "Linear":
        """The map with outputs multiplied by `factor`."""
        return jax.tree.map(lambda x: factor * x, self)

    def __call__(self, u: Float[Array, "*batch in"]) -> Float[Array, "*batch out"]:
        return affine(product(u, self.weight), None, self.bias)


def product(
    u: Float[Array, "*batch in"], weight: Float[Array, "in out"]
) -> Float[Array, "*batch out"]:
    """`u W`, computed in the dtype of the weights and returned in the dtype of the state."""
    if token_devices() > 1:
        # Samples and tokens cannot be merged into one axis if devices divide both.
        return (u.astype(weight.dtype) @ weight).astype(u.dtype)
    # On one axis of tokens; otherwise the gradient would copy both factors first.
    flat = u.reshape(-1, u.shape[-1]).astype(weight.dtype)
    return (flat @ weight).astype(u.dtype).reshape(*u.shape[:-1], weight.shape[1])


@checked
def relu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`max(x, 0)`, the projection on S2."""
    return jax.nn.relu(x)


@checked
def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`x Φ(x)`, Φ the normal distribution function. The gradient stores only x."""
    return _gelu(x)


@jax.custom_jvp
def _gelu(x: Array) -> Array:
    return x * _normal_distribution(x)


@_gelu.defjvp
def _gelu_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,) = primals
    (dx,) = tangents
    density = jnp.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return _gelu(x), (_normal_distribution(x) + x * density) * dx


def _normal_distribution(x: Array) -> Array:
    return 0.5 * (1 + lax.erf(x / math.sqrt(2)))


@checked
def gelu_tanh(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`x Φ(x)` with Φ approximated by a hyperbolic tangent (GPT-2)."""
    return jax.nn.gelu(x, approximate=True)


@checked
def silu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`x / (1 + exp(-x))`."""
    return jax.nn.silu(x)


@checked
def quick_gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`x / (1 + exp(-1.702 x))`, a cheap approximation of `gelu`."""
    return x * jax.nn.sigmoid(1.702 * x)


@checked
class FeatureIntegral(AbstractOperator):
    """One integral over features, a term of the feed-forward sum of the paper:

        du/dt = ⟨W(·,y), N(u)⟩_Ωy + b(y).

    Reference: arXiv 2510.03989.

    **Arguments:**

    - `features`: width of the state.
    - `normalization`, `bias`: N, and whether b exists.
    - `std`, `output_std`: standard deviation of the initial W; `output_std` overrides `std`.
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


class AbstractFeedForward(AbstractOperator):
    """A feed-forward `du/dt = W2 H(N(u)) + b2` with hidden features H."""

    inner: Linear
    outer: Linear
    normalization: AbstractConstraint
    activation: Activation = eqx.field(static=True)

    pointwise: ClassVar[bool] = True

    def __init__(
        self, features, hidden, keys, normalization, activation, bias, std, output_std
    ):
        output_std = std if output_std is None else output_std
        self.inner = Linear(features, hidden, bias=bias, std=std, key=keys[0])
        self.outer = Linear(hidden, features, bias=bias, std=output_std, key=keys[1])
        self.normalization = normalization
        self.activation = activation

    @abc.abstractmethod
    def hidden(self, v: State) -> Float[Array, "*batch tokens hidden"]:
        """H of a normalised state."""

    def at_points(self, space: FunctionSpace) -> "AbstractFeedForward":
        y = space.features
        hidden = space.inner(self.inner.weight.shape[1])
        return with_fields(
            self,
            inner=self.inner.at_points(y, hidden),
            outer=self.outer.at_points(hidden, y),
            normalization=self.normalization.at_points(space),
        )

    def __call__(self, u: State, domain: TokenDomain) -> State:
        check_features(self, u, self.inner.weight.shape[0])
        return self.outer(self.hidden(self.normalization.project(u)))


@checked
class FeedForward(AbstractFeedForward):
    """Two integrals over features with a pointwise nonlinearity σ between:

        du/dt = W2 σ(W1 N(u) + b1) + b2.

    With σ = ReLU, the projection on S2, it is a feed-forward of the paper (arXiv 2510.03989).

    **Arguments:**

    - `features`, `hidden`: width of the state, and between the maps. Default: `4 features`.
    - `activation`: σ, for example `relu`, `gelu` or `gelu_tanh`.
    - `normalization`: N; `LayerNorm` or `RMSNorm` gives the pre-norm form.
    - `bias`: whether b1 and b2 exist.
    - `std`, `output_std`: standard deviation of the initial W1, and of W2.
    """

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
        hidden = hidden or 4 * features
        maps = normalization, activation, bias, std, output_std
        super().__init__(features, hidden, jax.random.split(key), *maps)

    def hidden(self, v: State) -> Float[Array, "*batch tokens hidden"]:
        return self.activation(self.inner(v))


@checked
class GatedFeedForward(AbstractFeedForward):
    """A feed-forward whose hidden features are gated:

        du/dt = W2 (σ(Wg N(u)) ⊙ W1 N(u)).

    σ = SiLU gives SwiGLU (Shazeer, arXiv 2002.05202).

    **Arguments:**

    - `features`: width of the state.
    - `hidden`: width between the maps. Default: `8 features / 3` rounded up to a multiple of 8,
      so that there are as many weights as in `FeedForward`.
    - `activation`: σ.
    - `bias`: whether the three maps have biases.
    - `normalization`: N; `LayerNorm` or `RMSNorm` gives the pre-norm form.
    - `std`, `output_std`: standard deviation of the initial Wg and W1, and of W2.
    """

    gate: Linear

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
        hidden = hidden or 8 * (-(-features // 3))
        keys = jax.random.split(key, 3)
        maps = normalization, activation, bias, std, output_std
        super().__init__(features, hidden, keys[1:], *maps)
        self.gate = Linear(features, hidden, bias=bias, std=std, key=keys[0])

    def hidden(self, v: State) -> Float[Array, "*batch tokens hidden"]:
        return self.activation(self.gate(v)) * self.inner(v)

    def at_points(self, space: FunctionSpace) -> "AbstractFeedForward":
        gate = self.gate.at_points(space.features, space.inner(self.gate.weight.shape[1]))
        return with_fields(super().at_points(space), gate=gate)
