from typing import ClassVar

from jaxtyping import PRNGKeyArray

from ...arguments import NonNegativeFloat, PositiveInt
from ...errors import InputError
from ..constraints.sets import AbstractConstraint, Free
from ..domain import TokenDomain
from ..shapes import State
from .abstract_attention import AbstractAttention, Maps
from .quadrature.token_mean import Domains
from .region import Fredholm
from .sourced import AbstractSourcedOperator


class CrossAttention(AbstractAttention, AbstractSourcedOperator):
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
    - `key_bias`: whether the map to keys has one. Default: the same as `bias`.
    - `std`, `output_std`: standard deviation of the initial weights, and of those of the
      output map (default: the same).

    **Raises:** `InputError` where heads do not divide.
    """

    own_domain: ClassVar[bool] = True
    missing: ClassVar[str] = (
        "has no states of a second domain to look at; wrap the control: Sourced(control, "
        "states, states_domain). EncoderDecoder does so itself; its decoder alone cannot be "
        "solved."
    )
    # It integrates over the source only.
    pointwise: ClassVar[bool] = True

    def __init__(
        self,
        features: PositiveInt,
        heads: PositiveInt,
        *,
        key: PRNGKeyArray,
        source_features: PositiveInt | None = None,
        head_features: PositiveInt | None = None,
        normalization: AbstractConstraint = Free(),
        bias: bool = True,
        key_bias: bool | None = None,
        std: NonNegativeFloat = 0.02,
        output_std: NonNegativeFloat | None = None,
    ):
        super().__init__(
            features,
            heads,
            source_features=source_features,
            head_features=head_features,
            normalization=normalization,
            maps=Maps(bias, std, output_std, key_bias),
            key=key,
        )
        self.source = None
        self.source_domain = None

    def __call__(self, u: State, domain: TokenDomain) -> State:
        source, source_domain = self.given_source(), self.source_domain
        assert source_domain is not None
        tokens, features = source_domain.num_tokens, self.key.weight.shape[0]
        expected = (*u.shape[:-2], tokens, features)
        if source.shape != expected:
            raise InputError(
                f"CrossAttention: the source has shape {source.shape}, but a state of shape "
                f"{u.shape} and a source domain of {tokens} tokens need {expected}: the same "
                "batch axes, the tokens of the domain, the features of the weights."
            )
        heads = self.split_heads(self.projections(u, source))
        return self.integral(heads, Domains(domain, source_domain), Fredholm())
