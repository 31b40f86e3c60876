import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..domain import TokenDomain
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
    injection: Linear
    source: Float[Array, "*batch tokens features"] | None

    def __init__(self, attention: Attention, *, key: PRNGKeyArray, std: float = 0.02):
        parts = (attention.query, attention.key, attention.value)
        features = attention.query.weight.shape[0]
        inner = sum(part.weight.shape[1] for part in parts)
        self.attention = attention
        self.injection = Linear(features, inner, bias=False, std=std, key=key)
        self.source = None

    @property
    def causal(self) -> bool:
        return self.attention.causal

    def over(
        self,
        u: Float[Array, "*batch tokens features"],
        domain: TokenDomain,
        others: Others,
    ) -> Float[Array, "*batch tokens features"]:
        widths = [x.weight.shape[1] for x in (self.attention.query, self.attention.key)]
        splits = [widths[0], sum(widths)]
        query, key, value = jnp.split(self.injection(self.given_source()), splits, axis=-1)
        v = self.attention.normalization.project(u)
        return self.attention.of_input(v, domain, (query, key, value), others)
