import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ...errors import InputError
from ..constraints import AbstractConstraint, Free
from ..domain import TokenDomain
from .linear import Linear
from .operator import AbstractOperator, check_features
from .positions import AbstractPositions, NoPositions
from .region import AbstractRegion, Fredholm, Volterra


class Attention(AbstractOperator):
    """Multi-head attention, a non-local integral operator over tokens:

        du/dt = Σ_h ∫_Ωx(x) γ_h(x, x'; u) V_h(x') dx' W^O_h,
        γ_h = exp(s_h(x, x')) / ∫_Ωx(x) exp(s_h(x, η)) dη,   s_h = ⟨Q_h, K_h⟩ / sqrt(d),

    with `Q, K, V = ∫_Ωy W^{Q,K,V} N(u) dy`, N the input normalisation and d the features
    of a head. The integrals use the quadrature weights of the domain, which enter as
    `log w_j` on the scores: with equal weights this is exactly the softmax. Tokens of
    weight zero (padding) are never seen. Source: arXiv 2510.03989.

    **Arguments:**

    - `features`: width of the state.
    - `heads`: number of query heads; must divide `features` unless `head_features` is given.
    - `key_value_heads`: number of key and value heads, each shared by
      `heads / key_value_heads` query heads (grouped queries). Default: `heads`.
    - `head_features`: width of a head. Default: `features / heads`.
    - `causal`: integrate over `x' ≤ x` only (a Volterra operator).
    - `positions`: `NoPositions()` or `Rotary()`.
    - `normalization`: applied to the input; `LayerNorm` or `RMSNorm` gives the pre-norm form.
    - `bias`: whether the four linear maps have biases.
    - `std`, `output_std`: standard deviation of the initial weights, and of those of the
      output map (default: the same).

    **Raises:** `InputError` where heads do not divide.
    """

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    normalization: AbstractConstraint
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
        positions: AbstractPositions = NoPositions(),
        normalization: AbstractConstraint = Free(),
        bias: bool = True,
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
        if not isinstance(positions, NoPositions) and head_features % 2:
            raise InputError(
                f"Attention: rotary positions turn pairs of features, but a head has "
                f"{head_features}; choose an even number."
            )
        keys = jax.random.split(key, 4)
        inner, shared = heads * head_features, key_value_heads * head_features
        self.query = Linear(features, inner, bias=bias, std=std, key=keys[0])
        self.key = Linear(features, shared, bias=bias, std=std, key=keys[1])
        self.value = Linear(features, shared, bias=bias, std=std, key=keys[2])
        output_std = std if output_std is None else output_std
        self.output = Linear(inner, features, bias=bias, std=output_std, key=keys[3])
        self.normalization = normalization
        self.positions = positions
        self.region = Volterra() if causal else Fredholm()
        self.heads = heads
        self.key_value_heads = key_value_heads

    def __call__(
        self, u: Float[Array, "*batch tokens features"], domain: TokenDomain
    ) -> Float[Array, "*batch tokens features"]:
        return self.of_input(self.normalization.project(u), domain, (0.0, 0.0, 0.0))

    def of_input(
        self,
        v: Float[Array, "*batch tokens features"],
        domain: TokenDomain,
        shifts: tuple[Array | float, Array | float, Array | float],
    ) -> Float[Array, "*batch tokens features"]:
        """The rate for a normalised input v, with shifts of the queries, keys and values."""
        check_features(self, v, self.query.weight.shape[0])
        shift_query, shift_key, shift_value = shifts
        query = _heads(self.query(v) + shift_query, self.heads)
        key = _heads(self.key(v) + shift_key, self.key_value_heads)
        value = _heads(self.value(v) + shift_value, self.key_value_heads)
        query, key = self.positions(query, domain), self.positions(key, domain)
        mean = integrate(query, key, value, domain, self.region)
        return self.output(mean.reshape(*v.shape[:-1], -1))


def _heads(
    x: Float[Array, "*batch tokens inner"], heads: int
) -> Float[Array, "*batch tokens heads features"]:
    return x.reshape(*x.shape[:-1], heads, -1)


def integrate(
    query: Float[Array, "*batch tokens heads features"],
    key: Float[Array, "*batch tokens shared features"],
    value: Float[Array, "*batch tokens shared features"],
    domain: TokenDomain,
    region: AbstractRegion,
) -> Float[Array, "*batch tokens heads features"]:
    """`∫ γ(x, x') V(x') dx'` by the quadrature of the domain, each head by itself."""
    *batch, tokens, heads, features = query.shape
    shared = key.shape[-2]
    repeats = heads // shared
    # The queries that share a key and value are laid end to end along the token axis.
    query = query.reshape(*batch, tokens, shared, repeats, features) / math.sqrt(features)
    query = jnp.moveaxis(query, -2, -4).reshape(*batch, repeats * tokens, shared, features)
    scores = jnp.einsum("...xhd,...zhd->...hxz", query, key)
    if domain.log_weights is not None:
        log_weights = jnp.expand_dims(domain.log_weights, (-3, -2))
        scores = scores + jnp.broadcast_to(log_weights, scores.shape).astype(scores.dtype)
    inside = region.indicator(domain)
    if inside is not None:
        inside = jnp.broadcast_to(jnp.tile(inside, (repeats, 1)), scores.shape)
        scores = jnp.where(inside, scores, jnp.finfo(scores.dtype).min / 2)
    gamma = jax.nn.softmax(scores, axis=-1)
    mean = jnp.einsum("...hxz,...zhd->...xhd", gamma, value)
    mean = mean.reshape(*batch, repeats, tokens, shared, features)
    return jnp.moveaxis(mean, -4, -2).reshape(*batch, tokens, heads, features)
