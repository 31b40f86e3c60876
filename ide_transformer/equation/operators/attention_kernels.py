"""Attention with other kernels than the softmax."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ...arguments import NonNegativeFloat, PositiveInt, checked
from ..arrays import State
from ..constraints import AbstractConstraint, Free
from ..domain import TokenDomain
from .attention import AbstractAttention
from .operator import AbstractTokenIntegral, Others
from .positions import AbstractRegion, Fredholm, Volterra


class AbstractKernelAttention(AbstractAttention):
    """Attention over all tokens or the past, with a kernel of its own."""

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


@checked
class LinearAttention(AbstractKernelAttention):
    """Attention whose kernel is a product of positive features, at a cost linear in the tokens:

        du/dt = Σ_h ∫_Ωx(x) γ_h(x, x'; u) V_h(x') dx' W^O_h,
        γ_h = ⟨φ(Q_h(x)), φ(K_h(x'))⟩ / ∫_Ωx(x) ⟨φ(Q_h(x)), φ(K_h(η))⟩ dη,   φ = 1 + ELU,

    with `Q, K, V = ∫_Ωy W^{Q,K,V} N(u) dy`. Source: Katharopoulos et al., arXiv 2006.16236.

    **Arguments:** see `Attention`.
    """

    def __call__(self, u: State, domain: TokenDomain) -> State:
        query, key, value = self.projections(u)
        query = 1 + jax.nn.elu(query)
        key = 1 + jax.nn.elu(key)
        one = jnp.ones_like(value[..., :1])
        # The normaliser is the integral of one more value, 1.
        products = jnp.einsum("...zhd,...zhe->...zhde", key, jnp.concatenate([value, one], -1))
        over = domain.integral_up_to if self.causal else domain.mean
        integrals = over(products.reshape(*u.shape[:-1], -1))
        integrals = integrals.reshape(*integrals.shape[:-1], *products.shape[-3:])
        seen = "...xhde" if self.causal else "...hde"
        sums = jnp.einsum(f"...xhd,{seen}->...xhe", query, integrals)
        total = sums[..., -1:]
        # Some tokens see nothing: all padding, padding on the left, or φ zero to rounding. 0/0
        # would spread to all gradients.
        mean = sums[..., :-1] / jnp.where(total == 0, 1, total)
        return self.output(mean.reshape(u.shape))


@checked
class GaussianAttention(AbstractKernelAttention, AbstractTokenIntegral):
    """Attention with a Gaussian kernel:

        du/dt = Σ_h ∫_Ωx(x) γ_h(x, x'; u) V_h(x') dx' W^O_h,
        γ_h ∝ exp(-‖Q_h(x) - K_h(x')‖² / (2 sqrt(d))),   ∫_Ωx(x) γ_h(x, η) dη = 1,

    with `Q, K, V = ∫_Ωy W^{Q,K,V} N(u) dy` and d the features of a head. `‖Q‖²` cancels in the
    quotient, so the scores are `(⟨Q, K⟩ - ‖K‖²/2) / sqrt(d)`. Source: Chen, Zeng, Ji, Yang,
    arXiv 2111.00035, which does not normalise.

    **Arguments:** see `Attention`.
    """

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
