from jaxtyping import PRNGKeyArray

from ...arguments import NonNegativeFloat, PositiveFloat, PositiveInt
from ...errors import InputError
from ..constraints.sets import AbstractConstraint, Free
from ..domain import TokenDomain
from ..function_space import FunctionSpace
from ..shapes import State
from ..tree import with_fields
from .abstract_attention import AbstractAttention, Maps, Projections
from .positions import AbstractPositions, NoPositions
from .quadrature.token_mean import Domains
from .region import AbstractRegion, Fredholm, Neighborhood, Volterra
from .token_integral import AbstractTokenIntegral, Others


class Attention(AbstractAttention, AbstractTokenIntegral):
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
    - `window`: integrate over `‖x - x'‖ < window` only, in distances of the domain.
    - `positions`: `NoPositions()`, `Rotary()` or `RelativeBias()`.
    - `normalization`: applied to the input; `LayerNorm` or `RMSNorm` gives the pre-norm form.
    - `query_normalization`, `key_normalization`: applied to the features of each head of Q
      and K (Dehghani et al., arXiv 2302.05442).
    - `bias`: whether the linear maps have biases.
    - `key_bias`, `output_bias`: whether the maps to keys and to the output have one.
      Default: the same as `bias`.
    - `std`, `output_std`: standard deviation of the initial weights, and of those of the
      output map (default: the same).

    **Raises:** `InputError` where heads do not divide.
    """

    query_normalization: AbstractConstraint
    key_normalization: AbstractConstraint
    positions: AbstractPositions
    region: AbstractRegion

    def __init__(
        self,
        features: PositiveInt,
        heads: PositiveInt,
        *,
        key: PRNGKeyArray,
        key_value_heads: PositiveInt | None = None,
        head_features: PositiveInt | None = None,
        causal: bool = False,
        window: PositiveInt | PositiveFloat | None = None,
        positions: AbstractPositions = NoPositions(),
        normalization: AbstractConstraint = Free(),
        query_normalization: AbstractConstraint = Free(),
        key_normalization: AbstractConstraint = Free(),
        bias: bool = True,
        key_bias: bool | None = None,
        output_bias: bool | None = None,
        std: NonNegativeFloat = 0.02,
        output_std: NonNegativeFloat | None = None,
    ):
        super().__init__(
            features,
            heads,
            key_value_heads=key_value_heads,
            head_features=head_features,
            normalization=normalization,
            maps=Maps(bias, std, output_std, key_bias, output_bias),
            key=key,
        )
        positions.check(self.heads, self.head_features)
        self.query_normalization = query_normalization
        self.key_normalization = key_normalization
        self.positions = positions
        everywhere = Fredholm() if window is None else Neighborhood(window)
        self.region = Volterra(window) if causal else everywhere

    @property
    def causal(self) -> bool:
        return self.region.causal

    def at_points(self, space: FunctionSpace) -> "Attention":
        """Heads are functions on Ω_h × Ω_y, the sum over heads that over points of Ω_h. Scores
        are `√m ∫ Q K dy`, m the coefficients of a head, at any number of points."""
        if self.positions.turns_features:
            raise InputError(
                f"{type(self.positions).__name__} turns pairs of features, which functions of "
                "a feature have not; take LinearBias, RelativeBias, or learned positions."
            )
        for name in ("query_normalization", "key_normalization"):
            if type(getattr(self, name)) is not Free:
                raise InputError(
                    f"Attention: {name} has no form for heads that are functions of a "
                    "feature; leave it out."
                )
        modes, y = self.head_features, space.features
        queries = space.heads(self.heads, modes)
        shared = space.heads(self.key_value_heads, modes)
        # The scores of n points are divided by √n.
        query = self.query.at_points(y, queries.of_queries).times(
            (space.domain_of(modes).features / modes) ** 0.5
        )
        return with_fields(
            self,
            query=query,
            key=self.key.at_points(y, shared),
            value=self.value.at_points(y, shared),
            output=self.output.at_points(queries, y),
            normalization=self.normalization.at_points(space),
        )

    def over(self, u: State, domain: TokenDomain, others: Others) -> State:
        return self.over_projections(self.projections(u), domain, others)

    def over_projections(
        self, projections: Projections, domain: TokenDomain, others: Others
    ) -> State:
        """The rate, given queries, keys and values, of which a march keeps the latter two."""
        query, key, value = self.split_heads(projections)
        query = self.positions(self.query_normalization.project(query), domain)
        key = self.positions(self.key_normalization.project(key), domain)
        (key, value), seen = others((key, value), domain)
        bias = self.positions.score_bias(domain, seen)
        return self.integral(
            Projections(query, key, value), Domains(domain, seen), self.region, bias
        )
