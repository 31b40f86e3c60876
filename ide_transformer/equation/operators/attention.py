"""Attention to the state and to a source."""

from typing import ClassVar, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ...arguments import NonNegativeFloat, PositiveFloat, PositiveInt, checked
from ...errors import InputError
from ..arrays import State
from ..constraints import AbstractConstraint, Free
from ..domain import TokenDomain
from ..function_space import FeatureMap, FunctionSpace
from ..tree import with_fields
from .feed_forward import Linear
from .operator import (
    AbstractOperator,
    AbstractSourcedOperator,
    AbstractTokenIntegral,
    Gather,
    check_features,
    check_source,
)
from .positions import (
    AbstractPositions,
    AbstractRegion,
    Fredholm,
    NoPositions,
    ScoreBias,
    Volterra,
)
from .token_integral import integrate


# Queries, keys and values of each head. Keys and values may have fewer heads.
QueriesKeysValues: TypeAlias = tuple[
    Float[Array, "*batch tokens heads head_features"],
    Float[Array, "*batch others others_heads head_features"],
    Float[Array, "*batch others others_heads value_features"],
]


class AbstractAttention(AbstractOperator):
    """Multi-head attention of a state u to a function f over tokens,

        du/dt = Σ_h ∫ γ_h(x, x'; u, f) V_h(x') dx' W^O_h,
        Q = ∫_Ωy W^Q N(u) dy,   K, V = ∫_Ωy W^{K,V} f dy,

    N the input normalisation. In self-attention f = N(u).
    """

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    normalization: AbstractConstraint
    heads: int = eqx.field(static=True)
    key_value_heads: int = eqx.field(static=True)

    def __init__(
        self,
        features: int,
        heads: int,
        *,
        key: PRNGKeyArray,
        normalization: AbstractConstraint,
        bias: bool,
        std: float,
        output_std: float | None,
        output_bias: bool | None = None,
        key_value_heads: int | None = None,
        head_features: int | None = None,
    ):
        self.normalization = normalization
        self.heads = heads
        self.key_value_heads = key_value_heads or heads
        name = type(self).__name__
        if heads % self.key_value_heads or (head_features is None and features % heads):
            raise InputError(
                f"{name}: {heads=} must divide {features=}, unless head_features is set, and "
                f"key_value_heads={self.key_value_heads} must divide {heads=}."
            )
        width = head_features or features // heads
        inner = heads * width
        shared = self.key_value_heads * width
        keys = jax.random.split(key, 4)
        output_bias = bias if output_bias is None else output_bias
        output_std = std if output_std is None else output_std
        self.query = Linear(features, inner, bias=bias, std=std, key=keys[0])
        self.key = Linear(features, shared, bias=bias, std=std, key=keys[1])
        self.value = Linear(features, shared, bias=bias, std=std, key=keys[2])
        self.output = Linear(inner, features, bias=output_bias, std=output_std, key=keys[3])

    @property
    def head_features(self) -> int:
        return self.query.weight.shape[-1] // self.heads

    def projections(
        self, u: State, f: Float[Array, "*batch others features"] | None = None
    ) -> QueriesKeysValues:
        """Queries of the normalised state; keys and values of f, by default the normalised
        state."""
        check_features(self, u, self.query.weight.shape[0])
        v = self.normalization.project(u)
        f = v if f is None else f
        return self.split_heads(self.query(v), self.key(f), self.value(f))

    def split_heads(self, query: Array, key: Array, value: Array) -> QueriesKeysValues:
        def split(x):
            return x.reshape(*x.shape[:-1], -1, self.head_features)

        return split(query), split(key), split(value)

    def integral(
        self,
        projections: QueriesKeysValues,
        query_domain: TokenDomain,
        domain: TokenDomain,
        region: AbstractRegion,
        bias: ScoreBias = None,
    ) -> State:
        """`Σ_h ∫ γ_h V_h dx' W^O_h`, computed in the dtype of the weights and returned in the
        dtype of the queries."""
        query, key, value = (x.astype(self.value.weight.dtype) for x in projections)
        mean = integrate(query, key, value, query_domain, domain, region, bias)
        mean = mean.reshape(*query.shape[:-2], -1)
        return self.output(mean.astype(projections[0].dtype))


@checked
class Attention(AbstractAttention, AbstractTokenIntegral):
    """Multi-head attention, a non-local integral operator over tokens:

        du/dt = Σ_h ∫_Ωx(x) γ_h(x, x'; u) V_h(x') dx' W^O_h,
        γ_h = exp(s_h(x, x')) / ∫_Ωx(x) exp(s_h(x, η)) dη,   s_h = ⟨Q_h, K_h⟩ / sqrt(d),

    with `Q, K, V = ∫_Ωy W^{Q,K,V} N(u) dy`. The quadrature weights of the domain enter the
    scores as `log w_j`; equal weights give exactly the softmax. Tokens of weight zero (padding)
    are never seen. Reference: arXiv 2510.03989.

    **Arguments:**

    - `features`, `heads`: width of the state, and number of query heads.
    - `key_value_heads`: number of key and value heads, each shared by `heads / key_value_heads`
      query heads (grouped queries). Default: `heads`.
    - `head_features`: d, the features of a head. Default: `features / heads`.
    - `causal`: integrate over `x' ≤ x` only (a Volterra operator).
    - `window`: with `causal`, integrate over `x - window < x' ≤ x` only.
    - `positions`: `NoPositions()`, `Rotary()`, `RelativeBias()` or `LinearBias()`.
    - `normalization`: N; `LayerNorm` or `RMSNorm` gives the pre-norm form.
    - `query_normalization`, `key_normalization`: normalise Q and K in each head (Dehghani et
      al., arXiv 2302.05442).
    - `bias`: whether the linear maps have biases.
    - `output_bias`: whether the output has a bias. Default: `bias`.
    - `std`, `output_std`: standard deviation of the initial weights, and of the output map.
    """

    query_normalization: AbstractConstraint
    key_normalization: AbstractConstraint
    positions: AbstractPositions
    region: AbstractRegion

    def __init__(
        self,
        features: PositiveInt,
        heads: PositiveInt,
        *,
        key: PRNGKeyArray,
        key_value_heads: PositiveInt | None = None,
        head_features: PositiveInt | None = None,
        causal: bool = False,
        window: PositiveInt | PositiveFloat | None = None,
        positions: AbstractPositions = NoPositions(),
        normalization: AbstractConstraint = Free(),
        query_normalization: AbstractConstraint = Free(),
        key_normalization: AbstractConstraint = Free(),
        bias: bool = True,
        output_bias: bool | None = None,
        std: NonNegativeFloat = 0.02,
        output_std: NonNegativeFloat | None = None,
    ):
        super().__init__(
            features,
            heads,
            key=key,
            normalization=normalization,
            bias=bias,
            std=std,
            output_std=output_std,
            output_bias=output_bias,
            key_value_heads=key_value_heads,
            head_features=head_features,
        )
        if window is not None and not causal:
            raise InputError(f"Attention: {window=} needs causal=True.")
        positions.check(heads, self.head_features)
        self.query_normalization = query_normalization
        self.key_normalization = key_normalization
        self.positions = positions
        self.region = Volterra(window) if causal else Fredholm()

    @property
    def causal(self) -> bool:
        return self.region.causal

    def at_points(self, space: FunctionSpace) -> "Attention":
        """Heads are functions on Ω_h × Ω_y, summed over Ω_h. At any number of points scores are
        `√m ∫ Q K dy`, with m coefficients in a head."""
        normalizations = self.query_normalization, self.key_normalization
        if self.positions.turns_features or any(type(x) is not Free for x in normalizations):
            raise InputError(
                "Attention: functions of a feature need NoPositions() or a bias; drop Rotary, "
                "query_normalization and key_normalization."
            )
        modes = self.head_features
        y = space.features
        queries = space.heads(self.heads, modes)
        shared = space.heads(self.key_value_heads, modes)
        # Scores are integrals over y, and `integral` divides n points by √n.
        query = self.query.at_points(y, FeatureMap(queries.duals, queries.duals))
        query = query.times((space.domain_of(modes).features / modes) ** 0.5)
        return with_fields(
            self,
            query=query,
            key=self.key.at_points(y, shared),
            value=self.value.at_points(y, shared),
            output=self.output.at_points(queries, y),
            normalization=self.normalization.at_points(space),
        )

    # The result is as wide as the `output` map, which a caller may replace.
    def over(
        self, u: State, domain: TokenDomain, gather: Gather
    ) -> Float[Array, "*batch tokens outputs"]:
        return self.over_projections(self.projections(u), domain, gather)

    def over_projections(
        self, projections: QueriesKeysValues, domain: TokenDomain, gather: Gather
    ) -> State:
        """The rate, from queries, keys and values."""
        query, key, value = projections
        query = self.positions(self.query_normalization.project(query), domain)
        key = self.positions(self.key_normalization.project(key), domain)
        (key, value), key_domain = gather((key, value), domain)
        bias = self.positions.score_bias(domain, key_domain)
        return self.integral((query, key, value), domain, key_domain, self.region, bias)


@checked
class CrossAttention(AbstractAttention, AbstractSourcedOperator):
    """Attention to states f on a second domain Ω_x', an integral operator from functions over
    Ω_x' to functions over Ω_x:

        du/dt = Σ_h ∫_Ωx' γ_h(x, x'; u, f) V_h(x') dx' W^O_h,
        γ_h = exp(s_h(x, x')) / ∫_Ωx' exp(s_h(x, η)) dη,   s_h = ⟨Q_h(x), K_h(x')⟩ / sqrt(d),

    with `Q = ∫_Ωy W^Q N(u) dy`, `K, V = ∫_Ωy W^{K,V} f dy`. The weights of Ω_x' matter, not
    its coordinates. f has `features` too. Reference: Vaswani et al., arXiv 1706.03762; as an
    integral: arXiv 2510.03989.

    **Arguments:**

    - `features`, `heads`: width of the state, and number of heads.
    - `head_features`: d, the features of a head. Default: `features / heads`.
    - `normalization`: N; `LayerNorm` or `RMSNorm` gives the pre-norm form.
    - `bias`: whether the linear maps have biases.
    - `std`, `output_std`: standard deviation of the initial weights, and of the output map.
    """

    on_second_domain: ClassVar[bool] = True
    missing: ClassVar[str] = (
        "has no states of a second domain; use Sourced(control, states, states_domain), or "
        "inputs that return Embedded(…, encoded=…)."
    )
    # It integrates over the source only.
    pointwise: ClassVar[bool] = True

    def __init__(
        self,
        features: PositiveInt,
        heads: PositiveInt,
        *,
        key: PRNGKeyArray,
        head_features: PositiveInt | None = None,
        normalization: AbstractConstraint = Free(),
        bias: bool = True,
        std: NonNegativeFloat = 0.02,
        output_std: NonNegativeFloat | None = None,
    ):
        super().__init__(
            features,
            heads,
            key=key,
            normalization=normalization,
            bias=bias,
            std=std,
            output_std=output_std,
            head_features=head_features,
        )
        self.source = None
        self.source_domain = None

    def __call__(self, u: State, domain: TokenDomain) -> State:
        source = self.require_source()
        source_domain = self.source_domain
        assert source_domain is not None
        expected = (*u.shape[:-2], source_domain.num_tokens, self.key.weight.shape[0])
        check_source(self, source, expected)
        return self.integral(self.projections(u, source), domain, source_domain, Fredholm())


@checked
class SourcedAttention(AbstractTokenIntegral, AbstractSourcedOperator):
    """Attention that also sees the source f of the equation:

        (Q, K, V) = W^{Q,K,V} N(u) + W_f f.

    Reference: Bai, Kolter, Koltun, arXiv 1909.01377.

    **Arguments:** the `attention`; `key` and `std`, which draw W_f.
    """

    attention: Attention
    source_map: Linear

    def __init__(
        self, attention: Attention, *, key: PRNGKeyArray, std: NonNegativeFloat = 0.02
    ):
        features, query = attention.query.weight.shape
        inner = query + 2 * attention.key.weight.shape[1]
        self.attention = attention
        self.source_map = Linear(features, inner, bias=False, std=std, key=key)
        self.source = None
        self.source_domain = None

    @property
    def causal(self) -> bool:
        return self.attention.causal

    def over(self, u: State, domain: TokenDomain, gather: Gather) -> State:
        f = self.source_map(self.source_like(u))
        key_start = self.attention.query.weight.shape[1]
        value_start = key_start + self.attention.key.weight.shape[1]
        shifts = self.attention.split_heads(*jnp.split(f, [key_start, value_start], axis=-1))
        query, key, value = map(jnp.add, self.attention.projections(u), shifts)
        return self.attention.over_projections((query, key, value), domain, gather)
