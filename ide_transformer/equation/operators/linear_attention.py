import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from ...arguments import NonNegativeFloat, PositiveInt
from ..constraints.sets import AbstractConstraint, Free
from ..domain import TokenDomain
from ..shapes import State
from .abstract_attention import AbstractAttention, Maps


class LinearAttention(AbstractAttention):
    """Attention whose kernel is a product of positive features, so that its cost is linear in
    the tokens:

        du/dt = Σ_h ∫_Ωx(x) γ_h(x, x'; u) V_h(x') dx' W^O_h,
        γ_h = ⟨φ(Q_h(x)), φ(K_h(x'))⟩ / ∫_Ωx(x) ⟨φ(Q_h(x)), φ(K_h(η))⟩ dη,   φ = 1 + ELU,

    with `Q, K, V = ∫_Ωy W^{Q,K,V} N(u) dy`. Source: Katharopoulos et al., "Transformers are
    RNNs", 2020, arXiv 2006.16236.

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

    causal: bool = eqx.field(static=True)

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
        self.causal = causal

    def __call__(self, u: State, domain: TokenDomain) -> State:
        query, key, value = self.split_heads(self.projections(u))
        query, key = 1 + jax.nn.elu(query), 1 + jax.nn.elu(key)
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
