from collections.abc import Callable
from dataclasses import KW_ONLY

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, PRNGKeyArray

from ..arguments import NonNegativeInt, PositiveInt
from ..equation import (
    AbstractConstraint,
    AbstractControl,
    Free,
    Linear,
    TokenDomain,
    as_control,
)
from ..errors import InputError
from .encoder_parts import any_constraint, pool_first
from .model import Discretization
from .text import Text, rows
from .text_model import AbstractTextModel, token_logits


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


class TextEncoder(AbstractTextModel):
    """An encoder of texts: embeddings, the equation without a causal order, the states.

    `model(text)` maps integers `[..., tokens]`, or a `Text`, to the states at depth T,
    `[..., tokens, features]`. From these states `pooled` makes a vector for the text, and
    `logits` makes the logits of the tokens, if the model has the weights for it.

    **Arguments:**

    - `embedding`: `[vocabulary, embedded]`.
    - `positions`: `[places, embedded]`, added to the tokens; `None` where the operators see
      positions.
    - `segments`: `[kinds, embedded]`, added to the tokens, or `None`.
    - `lift`: the map from embedded to features (ALBERT), or `None` where they are the same.
    - `control`, `constraint`: as for `Equation`.
    - `discretization`: how the equation is solved.
    - `input_normalization`, `output_normalization`: applied to the embedded input (before
      `lift`) and to the states at depth T.
    - `pooler`: makes the pooled vector of the first token, or `None`.
    - `head`: the masked-token head, or `None`.
    - `padding`: a token that is not counted (RoBERTa): it has the row `padding` of
      `positions`, the others have the rows from `padding + 1` on. `None` where the rows are
      those of the places.
    - `context`: the longest text, in tokens.
    """

    embedding: Float[Array, "vocabulary embedded"]
    _: KW_ONLY
    positions: Float[Array, "places embedded"] | None = None
    segments: Float[Array, "kinds embedded"] | None = None
    lift: Linear | None = None
    control: AbstractControl
    constraint: AbstractControl = eqx.field(converter=any_constraint)
    input_normalization: AbstractConstraint = Free()
    output_normalization: AbstractConstraint = Free()
    pooler: Linear | None = None
    head: MaskedTokenHead | None = None
    discretization: Discretization
    padding: NonNegativeInt | None = eqx.field(static=True, default=None)
    context: PositiveInt = eqx.field(static=True)

    def __post_init__(self):
        self.constraint = as_control(self.constraint, self.control)

    def __check_init__(self):
        places = self.context if self.padding is None else self.padding + 1 + self.context
        if self.positions is not None and self.positions.shape[0] < places:
            raise InputError(
                f"TextEncoder: positions={self.positions.shape[0]} rows, but padding="
                f"{self.padding} and context={self.context} need {places}."
            )

    @property
    def features(self) -> int:
        return (self.embedding if self.lift is None else self.lift.weight).shape[1]

    @property
    def segment_kinds(self) -> int:
        return 1 if self.segments is None else self.segments.shape[0]

    def embed(
        self,
        inputs: Integer[Array | np.ndarray, "*batch tokens"] | Text,
        *,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, "*batch tokens features"], TokenDomain]:
        text = self.checked(inputs)
        u = rows(self.embedding, text.tokens)
        if self.positions is not None:
            u = u + jnp.broadcast_to(self.positions[self._rows(text.tokens)], u.shape)
        if self.segments is not None:
            first = jnp.zeros(u.shape[-2], int)
            segments = first if text.segments is None else text.segments
            u = u + jnp.broadcast_to(rows(self.segments, segments), u.shape)
        u = self.input_normalization.project(u)
        return u if self.lift is None else self.lift(u), text.domain()

    def _rows(
        self, tokens: Integer[Array | np.ndarray, "*batch tokens"]
    ) -> Integer[Array, "*rows tokens"]:
        """The rows of `positions` for the tokens of a text."""
        if self.padding is None:
            return jnp.arange(tokens.shape[-1])
        counted = jnp.asarray(tokens) != self.padding
        return self.padding + jnp.cumsum(counted, axis=-1) * counted

    def read_out(
        self, u: Float[Array, "*batch tokens features"]
    ) -> Float[Array, "*batch tokens features"]:
        return self.output_normalization.project(u)

    def pooled(
        self, states: Float[Array, "*batch tokens features"]
    ) -> Float[Array, "*batch features"]:
        """`tanh(W u_0 + b)`, u_0 the state of the first token.

        **Raises:** `InputError` for a model without a pooler.
        """
        missing = "This TextEncoder has no pooler; take sentence_embedding, or its states."
        return pool_first(self.pooler, states, missing=missing)

    def logits(
        self, states: Float[Array, "*batch tokens features"]
    ) -> Float[Array, "*batch tokens vocabulary"]:
        """The logits of the token at each place.

        **Raises:** `InputError` for a model without a masked-token head.
        """
        if self.head is None:
            raise InputError(
                "This TextEncoder has no masked-token head: its checkpoint has none."
            )
        return self.head(states, self.embedding)
