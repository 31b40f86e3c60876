import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from ...arguments import NonNegativeFloat, PositiveInt
from ..constraints.sets import AbstractConstraint, Free
from ..constraints.spheres import LayerNorm
from ..domain import TokenDomain
from ..shapes import State
from .abstract_attention import AbstractAttention, Maps


class GalerkinAttention(AbstractAttention):
    """Attention without a softmax, a projection of Petrov and Galerkin, whose cost is linear in
    the tokens:

        du/dt = Σ_h Q_h(x) (1/|Ω_x| ∫_Ωx N_K(K_h)(x') ⊗ N_V(V_h)(x') dx') W^O_h,

    with `Q, K, V = ∫_Ωy W^{Q,K,V} N(u) dy`. It sees all tokens, so it is for encoders and maps
    between functions. Source: Cao, "Choose a Transformer: Fourier or Galerkin", 2021,
    arXiv 2105.14995.

    **Arguments:**

    - `features`: width of the state.
    - `heads`: number of heads; must divide `features`.
    - `normalization`: N, applied to the input.
    - `key_normalization`, `value_normalization`: N_K and N_V, applied to the features of each
      head.
    - `bias`: whether the linear maps have biases.
    - `std`, `output_std`: standard deviation of the initial weights, and of those of the
      output map (default: the same).

    **Raises:** `InputError` where heads do not divide.
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
        super().__init__(
            features,
            heads,
            normalization=normalization,
            maps=Maps(bias, std, output_std),
            key=key,
        )
        self.key_normalization = key_normalization
        self.value_normalization = value_normalization

    def __call__(self, u: State, domain: TokenDomain) -> State:
        query, key, value = self.split_heads(self.projections(u))
        key = self.key_normalization.project(key)
        value = self.value_normalization.project(value)
        shares = jnp.broadcast_to(domain.shares.astype(u.dtype), u.shape[:-1])
        products = jnp.einsum("...z,...zhd,...zhe->...hde", shares, key, value)
        return self.output(
            jnp.einsum("...xhd,...hde->...xhe", query, products).reshape(u.shape)
        )
