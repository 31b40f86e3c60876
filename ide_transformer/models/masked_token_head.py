from collections.abc import Callable

import equinox as eqx
from jaxtyping import Array, Float

from ..equation import AbstractConstraint, Linear
from .text_model import token_logits


class MaskedTokenHead(eqx.Module):
    """Predicts the tokens behind masks from the states, `E N(σ(W u + b)) + c`. E are the token
    embeddings or a matrix of its own. Reference: Devlin et al., arXiv 1810.04805.

    **Arguments:**

    - `dense`: W and b.
    - `activation`: σ.
    - `normalization`: N.
    - `readout`: `[vocabulary, features]`, or `None` for the token embeddings.
    - `bias`: c.
    """

    dense: Linear
    normalization: AbstractConstraint
    readout: Float[Array, "vocabulary features"] | None
    bias: Float[Array, " vocabulary"]
    activation: Callable = eqx.field(static=True)

    def __call__(
        self,
        u: Float[Array, "*batch tokens features"],
        embedding: Float[Array, "vocabulary embedded"],
    ) -> Float[Array, "*batch tokens vocabulary"]:
        v = self.normalization.project(self.activation(self.dense(u)))
        return token_logits(v, embedding, self.readout, self.bias)
