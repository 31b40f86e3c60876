from typing import ClassVar

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from ...errors import InputError
from ..constraints import AbstractConstraint, Free
from ..domain import TokenDomain
from .linear import Linear
from .operator import check_features
from .quadrature import integrate, split_heads
from .region import Fredholm
from .sourced import AbstractSourcedOperator


class CrossAttention(AbstractSourcedOperator):
    """Attention to states f on a second domain Ω_x', an integral operator from functions
    over Ω_x' to functions over Ω_x:

        du/dt = Σ_h ∫_Ωx' γ_h(x, x'; u, f) V_h(x') dx' W^O_h,
        γ_h = exp(s_h(x, x')) / ∫_Ωx' exp(s_h(x, η)) dη,   s_h = ⟨Q_h(x), K_h(x')⟩ / sqrt(d),

    with `Q = ∫_Ωy W^Q N(u) dy`, `K, V = ∫_Ωy W^{K,V} f dy`, N the input normalisation and d
    the features of a head. The quadrature weights are those of Ω_x', as in `Attention`; its
    tokens of weight zero (padding) are never seen, and its points do not matter. Reference:
    Vaswani et al., arXiv 1706.03762; as an integral: arXiv 2510.03989.

    **Arguments:**

    - `features`: width of the state.
    - `heads`: number of heads; must divide `features` unless `head_features` is given.
    - `source_features`: width of f. Default: `features`.
    - `head_features`: width of a head. Default: `features / heads`.
    - `normalization`: applied to the state; `LayerNorm` or `RMSNorm` gives the pre-norm form.
    - `bias`: whether the linear maps have biases.
    - `key_bias`: whether the map to keys has one. Default: as `bias`.
    - `std`, `output_std`: standard deviation of the initial weights, and of those of the
      output map (default: the same).

    **Raises:** `InputError` where heads do not divide.
    """

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    normalization: AbstractConstraint
    source: Float[Array, "*batch others source_features"] | None
    source_domain: TokenDomain | None
    heads: int = eqx.field(static=True)

    # It integrates over the source only.
    pointwise: ClassVar[bool] = True

    def __init__(
        self,
        features: int,
        heads: int,
        *,
        key: PRNGKeyArray,
        source_features: int | None = None,
        head_features: int | None = None,
        normalization: AbstractConstraint = Free(),
        bias: bool = True,
        key_bias: bool | None = None,
        std: float = 0.02,
        output_std: float | None = None,
    ):
        if head_features is None:
            if features % heads:
                raise InputError(
                    f"CrossAttention: {heads} heads do not divide a width of {features}. "
                    "Choose a width that is a multiple of the heads, or give head_features."
                )
            head_features = features // heads
        keys = jax.random.split(key, 4)
        inner = heads * head_features
        seen = features if source_features is None else source_features
        key_bias = bias if key_bias is None else key_bias
        output_std = std if output_std is None else output_std
        self.query = Linear(features, inner, bias=bias, std=std, key=keys[0])
        self.key = Linear(seen, inner, bias=key_bias, std=std, key=keys[1])
        self.value = Linear(seen, inner, bias=bias, std=std, key=keys[2])
        self.output = Linear(inner, features, bias=bias, std=output_std, key=keys[3])
        self.normalization = normalization
        self.source = None
        self.source_domain = None
        self.heads = heads

    def with_source(
        self,
        source: Float[Array, "*batch others source_features"],
        domain: TokenDomain | None = None,
    ) -> "CrossAttention":
        """The same operator that sees f on its domain; unchanged by the input of the
        equation, which has none of its own."""
        if domain is None:
            return self
        return eqx.tree_at(
            lambda x: (x.source, x.source_domain),
            self,
            (source, domain),
            is_leaf=lambda x: x is None,
        )

    def __call__(
        self, u: Float[Array, "*batch tokens features"], domain: TokenDomain
    ) -> Float[Array, "*batch tokens features"]:
        check_features(self, u, self.query.weight.shape[0])
        source, source_domain = self._given(u)
        query = split_heads(self.query(self.normalization.project(u)), self.heads)
        key = split_heads(self.key(source), self.heads)
        value = split_heads(self.value(source), self.heads)
        mean = integrate(query, key, value, source_domain, domain, Fredholm())
        return self.output(mean.reshape(*u.shape[:-1], -1))

    def _given(self, u: Array) -> tuple[Array, TokenDomain]:
        """f and its domain, which have to fit the weights and the batch of the state."""
        if self.source is None or self.source_domain is None:
            raise InputError(
                "CrossAttention has no states of a second domain to look at; wrap the "
                "control: Sourced(control, states, states_domain). EncoderDecoder does so "
                "itself; its decoder alone cannot be solved."
            )
        tokens, features = self.source_domain.num_tokens, self.key.weight.shape[0]
        expected = (*u.shape[:-2], tokens, features)
        if self.source.shape != expected:
            raise InputError(
                f"CrossAttention: the source has shape {self.source.shape}, but a state of "
                f"shape {u.shape} and a source domain of {tokens} tokens need {expected}: "
                "the same batch axes, the tokens of the domain, the features of the weights."
            )
        return self.source, self.source_domain
