import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from ...arguments import NonNegativeFloat
from ..domain import TokenDomain
from ..shapes import State
from .attention import Attention
from .linear import Linear
from .sourced import AbstractSourcedOperator
from .token_integral import AbstractTokenIntegral, Others


class SourcedAttention(AbstractTokenIntegral, AbstractSourcedOperator):
    """Attention that sees the input f of the equation at every depth, in its queries, keys
    and values:

        (Q, K, V) = W^{Q,K,V} N(u) + W_f f.

    Its steady state depends on f, that of plain attention need not. Reference: Bai, Kolter,
    Koltun, arXiv 1909.01377.

    **Arguments:**

    - `attention`: the attention.
    - `key`: draws W_f.
    - `std`: standard deviation of the initial W_f.
    """

    attention: Attention
    source_map: Linear

    def __init__(
        self, attention: Attention, *, key: PRNGKeyArray, std: NonNegativeFloat = 0.02
    ):
        features = attention.query.weight.shape[0]
        inner = sum(
            x.weight.shape[1] for x in (attention.query, attention.key, attention.value)
        )
        self.attention = attention
        self.source_map = Linear(features, inner, bias=False, std=std, key=key)
        self.source = None
        self.source_domain = None

    @property
    def causal(self) -> bool:
        return self.attention.causal

    def over(self, u: State, domain: TokenDomain, others: Others) -> State:
        projections = self.attention.projections(u)
        query, key, _ = (x.shape[-1] for x in projections)
        shifts = jnp.split(self.source_map(self.source_like(u)), [query, query + key], axis=-1)
        shifted = type(projections)(*map(jnp.add, projections, shifts))
        return self.attention.over_projections(shifted, domain, others)
