"""Attention among slices of the domain, with a cost linear in the number of tokens."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ide_transformer.arguments import NonNegativeFloat, PositiveInt, checked
from ide_transformer.equation import (
    AbstractConstraint,
    AbstractOperator,
    Free,
    Linear,
    State,
    TokenDomain,
    check_features,
)
from ide_transformer.errors import InputError


@checked
class SliceAttention(AbstractOperator):
    """Attention among M slices, weighted means of the state over the domain. In each head

        a_k(x) = softmax_k(W_a N(u(x)) + b_a),
        s_k = ∫ a_k V dx' / ∫ a_k dx',   V = W_V N(u) + b_V,
        s'_k = Σ_l softmax_l(⟨W_Q s_k, W_K s_l⟩ / sqrt(d)) W_V' s_l,
        du/dt = W_O Σ_k a_k(x) s'_k + b_O,

    where N is the input normalisation, and d the features of a head. Integrals use the
    quadrature weights of the domain, so the operator is the same on every mesh, and padding has
    no influence. Time and memory grow as `tokens · slices`. Reference: Wu et al., arXiv
    2402.02366; there all heads share W_a and have temperatures.

    **Arguments:**

    - `features`, `heads`: see `Attention`.
    - `slices`: M.
    - `normalization`: N.
    - `std`, `output_std`: see `Attention`. W_a has standard deviation `3 / sqrt(features)`, so
      slices differ initially.
    """

    assignment: Linear
    value: Linear
    query: Linear
    key: Linear
    mixing: Linear
    output: Linear
    normalization: AbstractConstraint
    heads: int = eqx.field(static=True)

    def __init__(
        self,
        features: PositiveInt,
        heads: PositiveInt,
        slices: PositiveInt = 64,
        *,
        key: PRNGKeyArray,
        normalization: AbstractConstraint = Free(),
        std: NonNegativeFloat = 0.02,
        output_std: NonNegativeFloat | None = None,
    ):
        if features % heads:
            raise InputError(f"SliceAttention: heads={heads} must divide features={features}.")
        keys = jax.random.split(key, 6)
        width = features // heads
        inner_std = 1 / math.sqrt(width)
        self.assignment = Linear(
            features, heads * slices, std=3 / math.sqrt(features), key=keys[0]
        )
        self.value = Linear(features, features, std=std, key=keys[1])
        self.query = Linear(width, width, bias=False, std=inner_std, key=keys[2])
        self.key = Linear(width, width, bias=False, std=inner_std, key=keys[3])
        self.mixing = Linear(width, width, bias=False, std=inner_std, key=keys[4])
        output_std = std if output_std is None else output_std
        self.output = Linear(features, features, std=output_std, key=keys[5])
        self.normalization = normalization
        self.heads = heads

    def __call__(self, u: State, domain: TokenDomain) -> State:
        check_features(self, u, self.value.weight.shape[0])
        v = self.normalization.project(u)
        shares = jax.nn.softmax(self._split_heads(self.assignment(v)), axis=-1)
        means = self._slice_means(shares, self._split_heads(self.value(v)), domain)
        query = self.query(means)
        key = self.key(means)
        scores = jnp.einsum("...hkd,...hld->...hkl", query, key) / math.sqrt(key.shape[-1])
        mixed = jax.nn.softmax(scores, axis=-1) @ self.mixing(means)
        rate = jnp.einsum("...xhk,...hkd->...xhd", shares, mixed)
        return self.output(rate.reshape(u.shape))

    def _split_heads(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        return x.reshape(*x.shape[:-1], self.heads, -1)

    def _slice_means(
        self,
        shares: Float[Array, "*batch tokens heads slices"],
        values: Float[Array, "*batch tokens heads head_features"],
        domain: TokenDomain,
    ) -> Float[Array, "*batch heads slices head_features"]:
        """`∫ a_k V dx / ∫ a_k dx`; 0 for an empty slice."""
        weights = domain.shares[..., None, None].astype(shares.dtype)
        shares = shares * jnp.broadcast_to(weights, shares.shape)
        sizes = jnp.sum(shares, axis=-3)[..., None]
        sums = jnp.einsum("...xhk,...xhd->...hkd", shares, values)
        return sums / jnp.where(sizes == 0, 1, sizes)
