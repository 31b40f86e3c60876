import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from ...errors import InputError
from ..constraints import AbstractConstraint, Free
from ..domain import TokenDomain
from .linear import Linear
from .operator import check_features
from .positions import AbstractPositions, NoPositions, Rotary
from .quadrature import integrate, split_heads
from .region import AbstractRegion, Fredholm, Volterra
from .token_integral import AbstractTokenIntegral, Others


class Attention(AbstractTokenIntegral):
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
    - `window`: of a causal operator, integrate over `x - window < x' ≤ x` only.
    - `positions`: `NoPositions()`, `Rotary()` or `RelativeBias()`.
    - `normalization`: applied to the input; `LayerNorm` or `RMSNorm` gives the pre-norm form.
    - `query_normalization`, `key_normalization`: applied to the features of each head of Q
      and K (Dehghani et al., arXiv 2302.05442).
    - `bias`: whether the linear maps have biases.
    - `key_bias`, `output_bias`: whether the maps to keys and to the output have one.
      Default: as `bias`.
    - `std`, `output_std`: standard deviation of the initial weights, and of those of the
      output map (default: the same).

    **Raises:** `InputError` where heads do not divide.
    """

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    normalization: AbstractConstraint
    query_normalization: AbstractConstraint
    key_normalization: AbstractConstraint
    positions: AbstractPositions
    region: AbstractRegion
    heads: int = eqx.field(static=True)
    key_value_heads: int = eqx.field(static=True)

    def __init__(
        self,
        features: int,
        heads: int,
        *,
        key: PRNGKeyArray,
        key_value_heads: int | None = None,
        head_features: int | None = None,
        causal: bool = False,
        window: int | None = None,
        positions: AbstractPositions = NoPositions(),
        normalization: AbstractConstraint = Free(),
        query_normalization: AbstractConstraint = Free(),
        key_normalization: AbstractConstraint = Free(),
        bias: bool = True,
        key_bias: bool | None = None,
        output_bias: bool | None = None,
        std: float = 0.02,
        output_std: float | None = None,
    ):
        if head_features is None:
            if features % heads:
                raise InputError(
                    f"Attention: {heads} heads do not divide a width of {features}. Choose "
                    "a width that is a multiple of the heads, or give head_features."
                )
            head_features = features // heads
        key_value_heads = heads if key_value_heads is None else key_value_heads
        if heads % key_value_heads:
            raise InputError(
                f"Attention: {key_value_heads} key-value heads do not divide {heads} heads."
            )
        if isinstance(positions, Rotary):
            positions.check(head_features)
        if window is not None and not causal:
            raise InputError(
                f"Attention: a window of {window} tokens looks back; it needs causal=True."
            )
        keys = jax.random.split(key, 4)
        inner, shared = heads * head_features, key_value_heads * head_features
        self.query = Linear(features, inner, bias=bias, std=std, key=keys[0])
        key_bias = bias if key_bias is None else key_bias
        self.key = Linear(features, shared, bias=key_bias, std=std, key=keys[1])
        self.value = Linear(features, shared, bias=bias, std=std, key=keys[2])
        output_std = std if output_std is None else output_std
        output_bias = bias if output_bias is None else output_bias
        self.output = Linear(inner, features, bias=output_bias, std=output_std, key=keys[3])
        self.normalization = normalization
        self.query_normalization = query_normalization
        self.key_normalization = key_normalization
        self.positions = positions
        self.region = Volterra(window) if causal else Fredholm()
        self.heads = heads
        self.key_value_heads = key_value_heads

    @property
    def causal(self) -> bool:
        return self.region.causal

    def over(
        self,
        u: Float[Array, "*batch tokens features"],
        domain: TokenDomain,
        others: Others,
    ) -> Float[Array, "*batch tokens features"]:
        return self.of_input(self.normalization.project(u), domain, (0.0, 0.0, 0.0), others)

    def of_input(
        self,
        v: Float[Array, "*batch tokens features"],
        domain: TokenDomain,
        shifts: tuple[Array | float, Array | float, Array | float],
        others: Others,
    ) -> Float[Array, "*batch tokens features"]:
        """The rate for a normalised input v, with shifts of the queries, keys and values; of
        the tokens it remembers the latter two."""
        check_features(self, v, self.query.weight.shape[0])
        shift_query, shift_key, shift_value = shifts
        query = split_heads(self.query(v) + shift_query, self.heads)
        key = split_heads(self.key(v) + shift_key, self.key_value_heads)
        value = split_heads(self.value(v) + shift_value, self.key_value_heads)
        query = self.positions(self.query_normalization.project(query), domain)
        key = self.positions(self.key_normalization.project(key), domain)
        (key, value), seen = others((key, value), domain)
        # The integral is a product too, in the dtype of the weights.
        query, key, value = (x.astype(self.value.weight.dtype) for x in (query, key, value))
        bias = self.positions.score_bias(domain, seen)
        mean = integrate(query, key, value, seen, domain, self.region, bias)
        return self.output(mean.reshape(*v.shape[:-1], -1).astype(v.dtype))
