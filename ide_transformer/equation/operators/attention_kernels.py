"""Attention with another kernel than the softmax."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ...arguments import NonNegativeFloat, PositiveInt, checked
from ..arrays import State
from ..constraints import AbstractConstraint, Free
from ..domain import TokenDomain
from .attention import AbstractAttention
from .operator import AbstractTokenIntegral, Others
from .positions import AbstractRegion, Fredholm, Volterra


@checked
class GaussianAttention(AbstractAttention, AbstractTokenIntegral):
    """Attention with a Gaussian kernel:

        du/dt = Σ_h ∫_Ωx(x) γ_h(x, x'; u) V_h(x') dx' W^O_h,
        γ_h ∝ exp(-‖Q_h(x) - K_h(x')‖² / (2 sqrt(d))),   ∫_Ωx(x) γ_h(x, η) dη = 1,

    with `Q, K, V = ∫_Ωy W^{Q,K,V} N(u) dy` and d the features of a head. `‖Q‖²` cancels in the
    quotient, so the scores are `(⟨Q, K⟩ - ‖K‖²/2) / sqrt(d)`. Source: Chen, Zeng, Ji, Yang,
    arXiv 2111.00035, which does not normalise.

    **Arguments:** see `Attention`.
    """

    region: AbstractRegion

    def __init__(
        self,
        features: PositiveInt,
        heads: PositiveInt,
        *,
        key: PRNGKeyArray,
        causal: bool = False,
        normalization: AbstractConstraint = Free(),
        bias: bool = True,
        std: NonNegativeFloat = 0.02,
        output_std: NonNegativeFloat | None = None,
    ):
        super().__init__(features, heads, key, normalization, bias, std, output_std)
        self.region = Volterra() if causal else Fredholm()

    @property
    def causal(self) -> bool:
        return self.region.causal

    # As wide as `output` writes, since a caller may replace the map.
    def over(
        self, u: State, domain: TokenDomain, others: Others
    ) -> Float[Array, "*batch tokens written"]:
        query, key, value = self.projections(u)
        # One more feature holds -‖K‖²/2; `integral` divides by the root of d + 1.
        half = -jnp.sum(key**2, axis=-1, keepdims=True) / 2
        query = jnp.concatenate([query, jnp.ones_like(query[..., :1])], axis=-1)
        query = query * math.sqrt(query.shape[-1] / self.head_features)
        (key, value), seen = others((jnp.concatenate([key, half], axis=-1), value), domain)
        return self.integral((query, key, value), domain, seen, self.region)
