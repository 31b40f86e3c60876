"""Attention with other kernels than the softmax."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from ...arguments import NonNegativeFloat, NonNegativeInt, PositiveInt, checked
from ..arrays import State
from ..constraints import AbstractConstraint, Free, LayerNorm
from ..domain import TokenDomain
from .attention import AbstractAttention
from .operator import AbstractTokenIntegral, Others
from .positions import AbstractRegion, Fredholm, Volterra


class AbstractCausalKernel(AbstractAttention):
    """Attention over all tokens, or over the past."""

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
class LinearAttention(AbstractCausalKernel):
    """Attention whose kernel is a product of positive features, so that its cost is linear in
    the tokens:

        du/dt = Σ_h ∫_Ωx(x) γ_h(x, x'; u) V_h(x') dx' W^O_h,
        γ_h = ⟨φ(Q_h(x)), φ(K_h(x'))⟩ / ∫_Ωx(x) ⟨φ(Q_h(x)), φ(K_h(η))⟩ dη,   φ = 1 + ELU,

    with `Q, K, V = ∫_Ωy W^{Q,K,V} N(u) dy`. Source: Katharopoulos et al., "Transformers are
    RNNs", 2020, arXiv 2006.16236.

    **Arguments:** see `Attention`.
    """

    def __call__(self, u: State, domain: TokenDomain) -> State:
        query, key, value = self.projections(u)
        query = 1 + jax.nn.elu(query)
        key = 1 + jax.nn.elu(key)
        one = jnp.ones_like(value[..., :1])
        # The normaliser is the integral of one more value, which is 1.
        products = jnp.einsum("...zhd,...zhe->...zhde", key, jnp.concatenate([value, one], -1))
        over = domain.integral_up_to if self.causal else domain.mean
        integrals = over(products.reshape(*u.shape[:-1], -1))
        integrals = integrals.reshape(*integrals.shape[:-1], *products.shape[-3:])
        seen = "...xhde" if self.causal else "...hde"
        sums = jnp.einsum(f"...xhd,{seen}->...xhe", query, integrals)
        total = sums[..., -1:]
        # Nothing is seen where all is padding, before the first token of a text that is padded
        # on the left, and where φ is zero to rounding; 0/0 would spread to all gradients.
        mean = sums[..., :-1] / jnp.where(total == 0, 1, total)
        return self.output(mean.reshape(u.shape))


@checked
class GaussianAttention(AbstractCausalKernel, AbstractTokenIntegral):
    """Attention with a Gaussian kernel:

        du/dt = Σ_h ∫_Ωx(x) γ_h(x, x'; u) V_h(x') dx' W^O_h,
        γ_h ∝ exp(-‖Q_h(x) - K_h(x')‖² / (2 sqrt(d))),   ∫_Ωx(x) γ_h(x, η) dη = 1,

    with `Q, K, V = ∫_Ωy W^{Q,K,V} N(u) dy` and d the features of a head. The part of the square
    that depends on x alone falls out, so this is softmax attention whose keys lose half of
    their square. Source: Chen, Zeng, Ji, Yang, "Skyformer", 2021, arXiv 2111.00035, there
    without the normalisation.

    **Arguments:** see `Attention`.
    """

    # As many features as `output` writes, which may be read in the place of a rate.
    def over(
        self, u: State, domain: TokenDomain, others: Others
    ) -> Float[Array, "*batch tokens written"]:
        query, key, value = self.projections(u)
        # One feature more, for half of the square; `integral` divides by the root of d + 1.
        half = -jnp.sum(key**2, axis=-1, keepdims=True) / 2
        query = jnp.concatenate([query, jnp.ones_like(query[..., :1])], axis=-1)
        query = query * math.sqrt(query.shape[-1] / self.head_features)
        (key, value), seen = others((jnp.concatenate([key, half], axis=-1), value), domain)
        return self.integral((query, key, value), domain, seen, self.region)


@checked
class GalerkinAttention(AbstractAttention):
    """Attention without a softmax, a projection of Petrov and Galerkin, whose cost is linear in
    the tokens:

        du/dt = Σ_h Q_h(x) (1/|Ω_x| ∫_Ωx N_K(K_h)(x') ⊗ N_V(V_h)(x') dx') W^O_h,

    with `Q, K, V = ∫_Ωy W^{Q,K,V} N(u) dy`. It sees all tokens, so it is for encoders and maps
    between functions. Source: Cao, "Choose a Transformer: Fourier or Galerkin", 2021,
    arXiv 2105.14995.

    **Arguments:**

    - `key_normalization`, `value_normalization`: N_K and N_V, applied to the features of each
      head.
    - the others: see `Attention`.
    """

    key_normalization: AbstractConstraint
    value_normalization: AbstractConstraint

    def __init__(
        self,
        features: PositiveInt,
        heads: PositiveInt,
        *,
        key: PRNGKeyArray,
        normalization: AbstractConstraint = Free(),
        key_normalization: AbstractConstraint = LayerNorm(),
        value_normalization: AbstractConstraint = LayerNorm(),
        bias: bool = True,
        std: NonNegativeFloat = 0.02,
        output_std: NonNegativeFloat | None = None,
    ):
        super().__init__(features, heads, key, normalization, bias, std, output_std)
        self.key_normalization = key_normalization
        self.value_normalization = value_normalization

    def __call__(self, u: State, domain: TokenDomain) -> State:
        query, key, value = self.projections(u)
        key = self.key_normalization.project(key)
        value = self.value_normalization.project(value)
        shares = jnp.broadcast_to(domain.shares.astype(u.dtype), u.shape[:-1])
        products = jnp.einsum("...z,...zhd,...zhe->...hde", shares, key, value)
        return self.output(
            jnp.einsum("...xhd,...hde->...xhe", query, products).reshape(u.shape)
        )


@checked
class SinkhornAttention(AbstractAttention):
    """Attention whose kernel is doubly stochastic: of the mass that tokens are looked at with,
    each gets as much as its weight,

        du/dt = Σ_h ∫_Ωx γ_h(x, x'; u) V_h(x') dx' W^O_h,
        γ_h = exp(f(x) + s_h(x, x') + g(x')),
        ∫ γ_h(x, η) dη = 1,   ∫ γ_h(η, x') dη = 1 in the limit of many iterations,

    over a domain of measure 1, with `s_h = ⟨Q_h, K_h⟩ / sqrt(d)` and `Q, K, V` linear maps of
    N(u), d the features of a head. f and g are found by turns, f last; without iterations g = 0
    and this is the softmax. It sees all tokens, so it is for encoders. Source: Sander, Ablin,
    Blondel, Peyré, "Sinkformers", 2022, arXiv 2110.11773.

    **Arguments:**

    - `iterations`: how often g is found.
    - the others: see `Attention`.
    """

    iterations: int = eqx.field(static=True)

    def __init__(
        self,
        features: PositiveInt,
        heads: PositiveInt,
        *,
        key: PRNGKeyArray,
        iterations: NonNegativeInt = 3,
        normalization: AbstractConstraint = Free(),
        bias: bool = True,
        std: NonNegativeFloat = 0.02,
        output_std: NonNegativeFloat | None = None,
    ):
        super().__init__(features, heads, key, normalization, bias, std, output_std)
        self.iterations = iterations

    def __call__(self, u: State, domain: TokenDomain) -> State:
        query, key, value = self.projections(u)
        s = jnp.einsum("...xhd,...zhd->...hxz", query, key) / self.head_features**0.5
        shares = jnp.broadcast_to(domain.shares.astype(s.dtype), u.shape[:-1])
        # Of tokens that look, and of those that are looked at, for each head.
        rows = shares[..., None, :, None]
        columns = shares[..., None, None, :]

        def balanced(g: Array, _: None) -> tuple[Array, None]:
            f = -_normalised(s, columns, g, -1)[0]
            return -_normalised(s, rows, f, -2)[0], None

        g, _ = lax.scan(balanced, jnp.zeros_like(s[..., :1, :]), length=self.iterations)
        _, gamma = _normalised(s, columns, g, -1)
        mean = jnp.einsum("...hxz,...zhd->...xhd", gamma, value)
        return self.output(mean.reshape(u.shape))


# The logarithm of a weight that is 0 has no derivative, but what is made of it has.
@eqx.filter_custom_jvp
def _normalised(s: Array, shares: Array, g: Array, axis: int) -> tuple[Array, Array]:
    """`log Σ w exp(s + g)`, and `w exp(s + g)` divided by the sum."""
    scores = s + jnp.log(jnp.maximum(shares, jnp.finfo(s.dtype).tiny)) + g
    total = jax.nn.logsumexp(scores, axis=axis, keepdims=True)
    return total, jax.nn.softmax(scores, axis=axis)


@_normalised.def_jvp
def _normalised_jvp(primals, tangents):
    s, _, g, axis = primals
    total, gamma = _normalised(*primals)
    s_rate, shares_rate, g_rate = (0 if x is None else x for x in tangents[:3])
    rates = gamma * (s_rate + g_rate)
    if tangents[1] is not None:
        # Padding may have any score, and an infinite rate times 0 would spread.
        most = math.log(jnp.finfo(s.dtype).max) / 2
        rates = rates + shares_rate * jnp.exp(jnp.minimum(s + g - total, most))
    change = jnp.sum(rates, axis=axis, keepdims=True)
    return (total, gamma), (change, rates - gamma * change)
