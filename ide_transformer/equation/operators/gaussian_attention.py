import math

import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from ...arguments import NonNegativeFloat, PositiveInt
from ..constraints.sets import AbstractConstraint, Free
from ..domain import TokenDomain
from ..shapes import State
from .abstract_attention import AbstractAttention, Maps, Projections
from .quadrature.token_mean import Domains
from .region import AbstractRegion, Fredholm, Volterra
from .token_integral import AbstractTokenIntegral, Others


class GaussianAttention(AbstractAttention, AbstractTokenIntegral):
    """Attention with a Gaussian kernel in the place of the exponential of a product:

        du/dt = Σ_h ∫_Ωx(x) γ_h(x, x'; u) V_h(x') dx' W^O_h,
        γ_h ∝ exp(-‖Q_h(x) - K_h(x')‖² / (2 sqrt(d))),   ∫_Ωx(x) γ_h(x, η) dη = 1,

    with `Q, K, V = ∫_Ωy W^{Q,K,V} N(u) dy` and d the features of a head. The part of the square
    that depends on x alone falls out, so this is softmax attention whose keys lose half of
    their square. Source: Chen, Zeng, Ji, Yang, "Skyformer", 2021, arXiv 2111.00035, there
    without the normalisation.

    **Arguments:**

    - `features`: width of the state.
    - `heads`: number of heads; must divide `features`.
    - `causal`: integrate over `x' ≤ x` only.
    - `normalization`: N, applied to the input.
    - `bias`: whether the linear maps have biases.
    - `std`, `output_std`: standard deviation of the initial weights, and of those of the
      output map (default: the same).

    **Raises:** `InputError` where heads do not divide.
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
        super().__init__(
            features,
            heads,
            normalization=normalization,
            maps=Maps(bias, std, output_std),
            key=key,
        )
        self.region = Volterra() if causal else Fredholm()

    @property
    def causal(self) -> bool:
        return self.region.causal

    def over(self, u: State, domain: TokenDomain, others: Others) -> State:
        query, key, value = self.split_heads(self.projections(u))
        # One feature more, for half of the square; `integral` divides by the root of d + 1.
        half = -jnp.sum(key**2, axis=-1, keepdims=True) / 2
        query = jnp.concatenate([query, jnp.ones_like(query[..., :1])], axis=-1)
        query = query * math.sqrt(query.shape[-1] / self.head_features)
        (key, value), seen = others((jnp.concatenate([key, half], axis=-1), value), domain)
        return self.integral(Projections(query, key, value), Domains(domain, seen), self.region)
