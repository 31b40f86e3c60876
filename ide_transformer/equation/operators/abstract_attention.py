"""The base class of attention to the state and to a source."""

from typing import NamedTuple

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from ...errors import InputError
from ..constraints.sets import AbstractConstraint
from ..shapes import State
from .linear import Linear
from .operator import AbstractOperator, check_features
from .positions import ScoreBias
from .quadrature.integrate import integrate
from .quadrature.token_mean import Domains
from .region import AbstractRegion


class Projections(NamedTuple):
    """Queries, keys and values, the heads side by side in the last axis or in one of their
    own: `[..., tokens, inner]` or `[..., tokens, heads, features]`."""

    query: Array
    key: Array
    value: Array


class Maps(NamedTuple):
    """Options of the linear maps, as the constructors take them; `None` for the same as
    `bias` and `std`."""

    bias: bool
    std: float
    output_std: float | None
    key_bias: bool | None = None
    output_bias: bool | None = None


class AbstractAttention(AbstractOperator):
    """Multi-head attention of a state u to a function f over tokens,

    du/dt = Σ_h ∫ γ_h(x, x'; u, f) V_h(x') dx' W^O_h,
    Q = ∫_Ωy W^Q N(u) dy,   K, V = ∫_Ωy W^{K,V} f dy.
    """

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    normalization: AbstractConstraint
    heads: int = eqx.field(static=True)
    key_value_heads: int = eqx.field(static=True)

    def __init__(
        self,
        features: int,
        heads: int,
        *,
        normalization: AbstractConstraint,
        maps: Maps,
        key: PRNGKeyArray,
        source_features: int | None = None,
        key_value_heads: int | None = None,
        head_features: int | None = None,
    ):
        name = type(self).__name__
        if head_features is None:
            if features % heads:
                raise InputError(
                    f"{name}: heads={heads} do not divide features={features}. Choose features "
                    "that are a multiple of the heads, or give head_features."
                )
            head_features = features // heads
        key_value_heads = heads if key_value_heads is None else key_value_heads
        if heads % key_value_heads:
            raise InputError(
                f"{name}: key_value_heads={key_value_heads} do not divide heads={heads}."
            )
        source_features = features if source_features is None else source_features
        keys = jax.random.split(key, 4)
        inner, shared = heads * head_features, key_value_heads * head_features
        bias, std = maps.bias, maps.std
        key_bias = bias if maps.key_bias is None else maps.key_bias
        output_bias = bias if maps.output_bias is None else maps.output_bias
        output_std = std if maps.output_std is None else maps.output_std
        self.query = Linear(features, inner, bias=bias, std=std, key=keys[0])
        self.key = Linear(source_features, shared, bias=key_bias, std=std, key=keys[1])
        self.value = Linear(source_features, shared, bias=bias, std=std, key=keys[2])
        self.output = Linear(inner, features, bias=output_bias, std=output_std, key=keys[3])
        self.normalization = normalization
        self.heads = heads
        self.key_value_heads = key_value_heads

    @property
    def head_features(self) -> int:
        """The width of a head."""
        return self.query.weight.shape[1] // self.heads

    def projections(
        self, u: State, f: Float[Array, "*batch others source_features"] | None = None
    ) -> Projections:
        """Queries of the normalised state, keys and values of f; `None` for the normalised
        state itself."""
        check_features(self, u, self.query.weight.shape[0])
        v = self.normalization.project(u)
        f = v if f is None else f
        return Projections(self.query(v), self.key(f), self.value(f))

    def split_heads(self, projections: Projections) -> Projections:
        """The features, head by head."""
        return Projections(
            *(x.reshape(*x.shape[:-1], -1, self.head_features) for x in projections)
        )

    def integral(
        self,
        heads: Projections,
        domains: Domains,
        region: AbstractRegion,
        bias: ScoreBias = None,
    ) -> State:
        """`Σ_h ∫ γ_h V_h dx' W^O_h`, in the dtype of the queries."""
        # The integral is a product too, in the dtype of the weights.
        query, key, value = (x.astype(self.value.weight.dtype) for x in heads)
        mean = integrate(query, key, value, domains, region, bias)
        mean = mean.reshape(*heads.query.shape[:-2], -1)
        return self.output(mean.astype(heads.query.dtype))
