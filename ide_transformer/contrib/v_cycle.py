"""A V-cycle over tokens: an operator on a line of tokens and on coarser lines."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ide_transformer.arguments import NonNegativeFloat, PositiveInt, checked
from ide_transformer.equation import (
    AbstractConstraint,
    AbstractOperator,
    Depth,
    Free,
    Linear,
    State,
    TokenDomain,
    check_features,
    gelu,
    with_fields,
)
from ide_transformer.errors import InputError


@checked
class VCycle(AbstractOperator):
    """A multigrid V-cycle over a line of tokens. An operator G acts on the line, on every
    second token, on every fourth, …, and back:

        du/dt = V(u) - u.

    With the smoother `S(u) = P(u + G(u))`, V is

        v = S(u) at tokens 1, 3, 5, …,  v = u at the others         smooth
        c_j = v_{2j+1}                                              restrict
        v_{2j+1} ← v_{2j+1} + (V(c)_j - c_j)                        prolong and add
        V(u) = S(v) at tokens 0, 2, 4, …,  V(u) = v at the others   smooth

    and `V(u) = S(u)` for one token. Below n tokens there are `⌊log2 n⌋` coarse lines, of
    `⌊n/2⌋`, `⌊n/4⌋`, …, 1 tokens. The tokens of every line are numbered 0, 1, 2, …, so G can
    act on lines that are coarser than any in training.

    If G sees a token and the token before, the first smoothing joins the pairs (0, 1), (2, 3),
    … and the last smoothing the pairs (1, 2), (3, 4), …. A cycle then joins each token with all
    earlier tokens: a parallel prefix scan with a learned operator. V is causal if G is. A cycle
    applies G `2 ⌊log2 n⌋ + 1` times in a row, to fewer than `4 n` tokens in total. Padding at
    the end has no influence if it has none on G.

    Sources: Brandt, Math. Comp. 31 (1977), for multigrid with the whole state on coarse lines
    (FAS); here the smoothing is red-black. He and Xu, arXiv 1901.10415, for learned multigrid
    (MgNet). Blelloch, "Prefix sums and their applications", 1990, for scans.

    **Arguments:**

    - `operator`: G, which sees neighbours: attention in a window, a convolution, or
      `PairFeedForward`.
    - `constraint`: P. With `Sphere` states have the same size on all lines.
    - `levels`: the number of lines with separate weights, from the finest on; they start equal.
      Coarser lines share the weights of the last. Default: one G for all lines.

    **Raises:** `InputError` if tokens are not at 0, 1, 2, … on a line.
    """

    operators: tuple[AbstractOperator, ...]
    constraint: AbstractConstraint

    def __init__(
        self,
        operator: AbstractOperator,
        constraint: AbstractConstraint = Free(),
        levels: PositiveInt = 1,
    ):
        # Copies, since a training step cannot donate an array twice.
        arrays, static = eqx.partition(operator, eqx.is_array)
        self.operators = tuple(
            eqx.combine(jax.tree.map(jnp.copy, arrays), static) for _ in range(levels)
        )
        self.constraint = constraint

    @property
    def innermost(self) -> AbstractOperator:
        return self.operators[0].innermost

    def at(self, t: Depth, args: PyTree) -> "VCycle":
        return with_fields(self, operators=tuple(x.at(t, args) for x in self.operators))

    def __call__(self, u: State, domain: TokenDomain) -> State:
        _check_line(self, domain)
        return self._cycle(u, domain, 0) - u

    def _cycle(self, u: State, domain: TokenDomain, level: int) -> State:
        operator = self.operators[min(level, len(self.operators) - 1)]

        def smooth(v: State) -> State:
            return self.constraint.project(v + operator(v, domain))

        if domain.num_tokens == 1:
            return smooth(u)
        coarse = self._cycle(smooth(u)[..., 1::2, :], _every_second(domain), level + 1)
        v = _interleave(u[..., ::2, :], coarse)
        return _interleave(smooth(v)[..., ::2, :], coarse)


@checked
class PairFeedForward(AbstractOperator):
    """A feed-forward that sees a token and an earlier token,

        du/dt = W2 σ(W1 N(u)(x) + W0 N(u)(x - d) + b1) + b2,

    with `N(u) = 0` before the first token and at padding.

    **Arguments:**

    - `hidden`: the width between the maps. Default: `2 features`.
    - `distance`: d, in tokens.
    - other arguments: see `FeedForward`.

    **Raises:** `InputError` if tokens are not at 0, 1, 2, … on a line.
    """

    own: Linear
    earlier: Linear
    outer: Linear
    normalization: AbstractConstraint
    activation: Callable[[Array], Array] = eqx.field(static=True)
    distance: int = eqx.field(static=True)

    causal: ClassVar[bool] = True

    def __init__(
        self,
        features: PositiveInt,
        hidden: PositiveInt | None = None,
        *,
        key: PRNGKeyArray,
        distance: PositiveInt = 1,
        activation: Callable[[Array], Array] = gelu,
        normalization: AbstractConstraint = Free(),
        bias: bool = True,
        std: NonNegativeFloat = 0.02,
        output_std: NonNegativeFloat | None = None,
    ):
        hidden = hidden or 2 * features
        keys = jax.random.split(key, 3)
        output_std = std if output_std is None else output_std
        self.own = Linear(features, hidden, bias=bias, std=std, key=keys[0])
        self.earlier = Linear(features, hidden, bias=False, std=std, key=keys[1])
        self.outer = Linear(hidden, features, bias=bias, std=output_std, key=keys[2])
        self.normalization = normalization
        self.activation = activation
        self.distance = distance

    def __call__(self, u: State, domain: TokenDomain) -> State:
        check_features(self, u, self.outer.weight.shape[1])
        _check_line(self, domain)
        v = self.normalization.project(u)
        real = v
        if domain.weights is not None:
            is_token = jnp.broadcast_to(domain.weights[..., None] > 0, v.shape)
            real = jnp.where(is_token, v, 0)
        before = jnp.zeros_like(real[..., : self.distance, :])
        earlier = jnp.concatenate([before, real], axis=-2)[..., : u.shape[-2], :]
        return self.outer(self.activation(self.own(v) + self.earlier(earlier)))


def _check_line(operator: AbstractOperator, domain: TokenDomain) -> None:
    is_line = domain.period is None and domain.end_weights is None
    if not (domain.consecutive and is_line):
        raise InputError(
            f"{type(operator).__name__} needs tokens at 0, 1, 2, … on a line, without a class "
            "token; use TokenDomain.uniform."
        )


def _every_second(domain: TokenDomain) -> TokenDomain:
    """The line of tokens 1, 3, 5, …, numbered 0, 1, 2, …."""
    weights = domain.weights
    if weights is not None:
        weights = weights[..., 1::2]
        # A domain needs a positive weight. A line of padding alone has no influence on real
        # tokens.
        has_tokens = jnp.any(weights > 0, axis=-1, keepdims=True)
        weights = jnp.where(has_tokens, weights, 1)
    return dataclasses.replace(TokenDomain.uniform(domain.num_tokens // 2), weights=weights)


def _interleave(
    first: Float[Array, "*batch first features"], second: Float[Array, "*batch second features"]
) -> State:
    """Joins `first` at tokens 0, 2, 4, … and `second` at tokens 1, 3, 5, …."""
    *batch, num_pairs, features = second.shape
    pairs = jnp.stack([first[..., :num_pairs, :], second], axis=-2)
    pairs = pairs.reshape(*batch, 2 * num_pairs, features)
    return jnp.concatenate([pairs, first[..., num_pairs:, :]], axis=-2)
