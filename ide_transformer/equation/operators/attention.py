"""Attention to the state and to a source."""

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ...arguments import NonNegativeFloat, PositiveFloat, PositiveInt
from ...errors import InputError
from ..arrays import State
from ..constraints import AbstractConstraint, Free
from ..domain import TokenDomain
from ..function_space import FunctionSpace
from ..tree import with_fields
from .linear import Linear
from .operator import (
    AbstractOperator,
    AbstractSourcedOperator,
    AbstractTokenIntegral,
    Others,
    check_features,
)
from .positions import AbstractPositions, NoPositions, ScoreBias
from .quadrature.integrate import integrate
from .quadrature.token_mean import Domains
from .region import AbstractRegion, Fredholm, Neighborhood, Volterra


class Projections(NamedTuple):
    """Queries, keys and values, `[..., tokens, inner]` or `[..., tokens, heads, features]`."""

    query: Array
    key: Array
    value: Array


class Maps(NamedTuple):
    """Options of the linear maps, as the constructors take them; `None` for the same as
    `bias` and `std`."""

    bias: bool
    std: float
    output_std: float | None
    key_bias: bool | None = None
    output_bias: bool | None = None


class AbstractAttention(AbstractOperator):
    """Multi-head attention of a state u to a function f over tokens,

    du/dt = Σ_h ∫ γ_h(x, x'; u, f) V_h(x') dx' W^O_h,
    Q = ∫_Ωy W^Q N(u) dy,   K, V = ∫_Ωy W^{K,V} f dy.
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
        normalization: AbstractConstraint,
        maps: Maps,
        key: PRNGKeyArray,
        *,
        source_features: int | None = None,
        key_value_heads: int | None = None,
        head_features: int | None = None,
    ):
        name = type(self).__name__
        key_value_heads = heads if key_value_heads is None else key_value_heads
        if head_features is None and features % heads:
            raise InputError(
                f"{name}: heads={heads} do not divide features={features}. Choose features "
                "that are a multiple of the heads, or give head_features."
            )
        head_features = features // heads if head_features is None else head_features
        if heads % key_value_heads:
            raise InputError(
                f"{name}: key_value_heads={key_value_heads} do not divide heads={heads}."
            )
        source_features = features if source_features is None else source_features
        keys = jax.random.split(key, 4)
        inner, shared = heads * head_features, key_value_heads * head_features
        bias, std, output_std, key_bias, output_bias = maps
        key_bias = bias if key_bias is None else key_bias
        output_bias = bias if output_bias is None else output_bias
        output_std = std if output_std is None else output_std
        self.query = Linear(features, inner, bias=bias, std=std, key=keys[0])
        self.key = Linear(source_features, shared, bias=key_bias, std=std, key=keys[1])
        self.value = Linear(source_features, shared, bias=bias, std=std, key=keys[2])
        self.output = Linear(inner, features, bias=output_bias, std=output_std, key=keys[3])
        self.normalization = normalization
        self.heads = heads
        self.key_value_heads = key_value_heads

    @property
    def head_features(self) -> int:
        """The width of a head."""
        return self.query.weight.shape[1] // self.heads

    def projections(
        self, u: State, f: Float[Array, "*batch others source_features"] | None = None
    ) -> Projections:
        """Queries of the normalised state, keys and values of f, by default the same."""
        check_features(self, u, self.query.weight.shape[0])
        v = self.normalization.project(u)
        f = v if f is None else f
        return Projections(self.query(v), self.key(f), self.value(f))

    def split_heads(self, projections: Projections) -> Projections:
        """The features, head by head."""
        return Projections(
            *(x.reshape(*x.shape[:-1], -1, self.head_features) for x in projections)
        )

    def integral(
        self,
        heads: Projections,
        domains: Domains,
        region: AbstractRegion,
        bias: ScoreBias = None,
    ) -> State:
        """`Σ_h ∫ γ_h V_h dx' W^O_h`, in the dtype of the queries."""
        # The integral is a product too, in the dtype of the weights.
        query, key, value = (x.astype(self.value.weight.dtype) for x in heads)
        mean = integrate(query, key, value, domains, region, bias)
        mean = mean.reshape(*heads.query.shape[:-2], -1)
        return self.output(mean.astype(heads.query.dtype))


class Attention(AbstractAttention, AbstractTokenIntegral):
    """Multi-head attention, a non-local integral operator over tokens:

        du/dt = Σ_h ∫_Ωx(x) γ_h(x, x'; u) V_h(x') dx' W^O_h,
        γ_h = exp(s_h(x, x')) / ∫_Ωx(x) exp(s_h(x, η)) dη,   s_h = ⟨Q_h, K_h⟩ / sqrt(d),

    with `Q, K, V = ∫_Ωy W^{Q,K,V} N(u) dy`, N the input normalisation and d the features
    of a head. The integrals use the quadrature weights of the domain, which enter as
    `log w_j` on the scores: with equal weights this is exactly the softmax. Tokens of
    weight zero (padding) are never seen. Reference: arXiv 2510.03989.

    **Arguments:**

    - `features`: width of the state.
    - `heads`: number of query heads; must divide `features` unless `head_features` is given.
    - `key_value_heads`: number of key and value heads, each shared by
      `heads / key_value_heads` query heads (grouped queries). Default: `heads`.
    - `head_features`: width of a head. Default: `features / heads`.
    - `causal`: integrate over `x' ≤ x` only (a Volterra operator).
    - `window`: integrate over `‖x - x'‖ < window` only, in distances of the domain.
    - `positions`: `NoPositions()`, `Rotary()` or `RelativeBias()`.
    - `normalization`: applied to the input; `LayerNorm` or `RMSNorm` gives the pre-norm form.
    - `query_normalization`, `key_normalization`: applied to the features of each head of Q
      and K (Dehghani et al., arXiv 2302.05442).
    - `bias`: whether the linear maps have biases.
    - `key_bias`, `output_bias`: whether the maps to keys and to the output have one.
      Default: the same as `bias`.
    - `std`, `output_std`: standard deviation of the initial weights, and of those of the
      output map (default: the same).

    **Raises:** `InputError` where heads do not divide.
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
        key_bias: bool | None = None,
        output_bias: bool | None = None,
        std: NonNegativeFloat = 0.02,
        output_std: NonNegativeFloat | None = None,
    ):
        maps = Maps(bias, std, output_std, key_bias, output_bias)
        own = dict(key_value_heads=key_value_heads, head_features=head_features)
        super().__init__(features, heads, normalization, maps, key, **own)
        positions.check(self.heads, self.head_features)
        self.query_normalization = query_normalization
        self.key_normalization = key_normalization
        self.positions = positions
        everywhere = Fredholm() if window is None else Neighborhood(window)
        self.region = Volterra(window) if causal else everywhere

    @property
    def causal(self) -> bool:
        return self.region.causal

    def at_points(self, space: FunctionSpace) -> "Attention":
        """Heads are functions on Ω_h × Ω_y, the sum over heads that over points of Ω_h. Scores
        are `√m ∫ Q K dy`, m the coefficients of a head, at any number of points."""
        if self.positions.turns_features:
            raise InputError(
                f"{type(self.positions).__name__} turns pairs of features, which functions of "
                "a feature have not; take LinearBias, RelativeBias, or learned positions."
            )
        for name in ("query_normalization", "key_normalization"):
            if type(getattr(self, name)) is not Free:
                raise InputError(
                    f"Attention: {name} has no form for heads that are functions of a "
                    "feature; leave it out."
                )
        modes, y = self.head_features, space.features
        queries = space.heads(self.heads, modes)
        shared = space.heads(self.key_value_heads, modes)
        # The scores of n points are divided by √n.
        query = self.query.at_points(y, queries.of_queries).times(
            (space.domain_of(modes).features / modes) ** 0.5
        )
        return with_fields(
            self,
            query=query,
            key=self.key.at_points(y, shared),
            value=self.value.at_points(y, shared),
            output=self.output.at_points(queries, y),
            normalization=self.normalization.at_points(space),
        )

    def over(self, u: State, domain: TokenDomain, others: Others) -> State:
        return self.over_projections(self.projections(u), domain, others)

    def over_projections(
        self, projections: Projections, domain: TokenDomain, others: Others
    ) -> State:
        """The rate, given queries, keys and values, of which a march keeps the latter two."""
        query, key, value = self.split_heads(projections)
        query = self.positions(self.query_normalization.project(query), domain)
        key = self.positions(self.key_normalization.project(key), domain)
        (key, value), seen = others((key, value), domain)
        bias = self.positions.score_bias(domain, seen)
        return self.integral(
            Projections(query, key, value), Domains(domain, seen), self.region, bias
        )


class CrossAttention(AbstractAttention, AbstractSourcedOperator):
    """Attention to states f on a second domain Ω_x', an integral operator from functions
    over Ω_x' to functions over Ω_x:

        du/dt = Σ_h ∫_Ωx' γ_h(x, x'; u, f) V_h(x') dx' W^O_h,
        γ_h = exp(s_h(x, x')) / ∫_Ωx' exp(s_h(x, η)) dη,   s_h = ⟨Q_h(x), K_h(x')⟩ / sqrt(d),

    with `Q = ∫_Ωy W^Q N(u) dy`, `K, V = ∫_Ωy W^{K,V} f dy`, N the input normalisation and d
    the features of a head. The quadrature weights are those of Ω_x', as in `Attention`; its
    tokens of weight zero (padding) are never seen, and its points do not matter. Reference:
    Vaswani et al., arXiv 1706.03762; as an integral: arXiv 2510.03989.

    **Arguments:**

    - `source_features`: width of f. Default: `features`.
    - the others: see `Attention`.
    """

    own_domain: ClassVar[bool] = True
    missing: ClassVar[str] = (
        "has no states of a second domain to look at; wrap the control: Sourced(control, "
        "states, states_domain). EncoderDecoder does so itself; its decoder alone cannot be "
        "solved."
    )
    # It integrates over the source only.
    pointwise: ClassVar[bool] = True

    def __init__(
        self,
        features: PositiveInt,
        heads: PositiveInt,
        *,
        key: PRNGKeyArray,
        source_features: PositiveInt | None = None,
        head_features: PositiveInt | None = None,
        normalization: AbstractConstraint = Free(),
        bias: bool = True,
        key_bias: bool | None = None,
        std: NonNegativeFloat = 0.02,
        output_std: NonNegativeFloat | None = None,
    ):
        maps = Maps(bias, std, output_std, key_bias)
        own = dict(source_features=source_features, head_features=head_features)
        super().__init__(features, heads, normalization, maps, key, **own)
        self.source = None
        self.source_domain = None

    def __call__(self, u: State, domain: TokenDomain) -> State:
        source, source_domain = self.given_source(), self.source_domain
        assert source_domain is not None
        tokens, features = source_domain.num_tokens, self.key.weight.shape[0]
        expected = (*u.shape[:-2], tokens, features)
        if source.shape != expected:
            raise InputError(
                f"CrossAttention: the source has shape {source.shape}, but a state of shape "
                f"{u.shape} and a source domain of {tokens} tokens need {expected}: the same "
                "batch axes, the tokens of the domain, the features of the weights."
            )
        heads = self.split_heads(self.projections(u, source))
        return self.integral(heads, Domains(domain, source_domain), Fredholm())


class SourcedAttention(AbstractTokenIntegral, AbstractSourcedOperator):
    """Attention that sees the input f of the equation at every depth, in its queries, keys
    and values:

        (Q, K, V) = W^{Q,K,V} N(u) + W_f f.

    Its steady state depends on f, that of plain attention need not. Reference: Bai, Kolter,
    Koltun, arXiv 1909.01377.

    **Arguments:**

    - `attention`: the attention.
    - `key`: draws W_f.
    - `std`: standard deviation of the initial W_f.
    """

    attention: Attention
    source_map: Linear

    def __init__(
        self, attention: Attention, *, key: PRNGKeyArray, std: NonNegativeFloat = 0.02
    ):
        features = attention.query.weight.shape[0]
        inner = sum(
            x.weight.shape[1] for x in (attention.query, attention.key, attention.value)
        )
        self.attention = attention
        self.source_map = Linear(features, inner, bias=False, std=std, key=key)
        self.source = None
        self.source_domain = None

    @property
    def causal(self) -> bool:
        return self.attention.causal

    def over(self, u: State, domain: TokenDomain, others: Others) -> State:
        projections = self.attention.projections(u)
        query, key, _ = (x.shape[-1] for x in projections)
        shifts = jnp.split(self.source_map(self.source_like(u)), [query, query + key], axis=-1)
        shifted = type(projections)(*map(jnp.add, projections, shifts))
        return self.attention.over_projections(shifted, domain, others)
