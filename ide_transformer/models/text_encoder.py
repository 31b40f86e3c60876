from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..equation import (
    AbstractConstraint,
    AbstractControl,
    Free,
    Linear,
    TokenDomain,
    as_control,
    product,
)
from ..equation.affine import affine
from ..errors import InputError
from .model import AbstractModel, Discretization
from .text import Text, as_text


class MaskedTokenHead(eqx.Module):
    """What predicts the tokens behind masks from the states, `E N(σ(W u + b)) + c`, E the
    token embeddings or a matrix of its own. Reference: Devlin et al., arXiv 1810.04805.

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
        weight = embedding if self.readout is None else self.readout
        v = self.normalization.project(self.activation(self.dense(u)))
        return affine(product(v, weight.T), None, self.bias)


class TextEncoder(AbstractModel):
    """An encoder of texts: embeddings, the equation without a causal order, the states.

    `model(text)` maps integers `[..., tokens]`, or a `Text`, to the states at depth T,
    `[..., tokens, features]`. From these states `pooled` makes a vector for the text and
    `logits` those of the tokens, where the model has weights for them.

    **Arguments:**

    - `embedding`: `[vocabulary, embedded]`.
    - `positions`: `[places, embedded]`, added to the tokens; `None` for operators that see
      positions.
    - `segments`: `[kinds, embedded]`, added to the tokens, or `None`.
    - `lift`: from embedded to features (ALBERT), or `None` where they are the same.
    - `control`, `constraint`: as for `Equation`.
    - `discretization`: how the equation is solved.
    - `input_normalization`, `output_normalization`: applied to the embedded input (before
      `lift`) and to the states at depth T.
    - `pooler`: makes the pooled vector of the first token, or `None`.
    - `head`: the masked-token head, or `None`.
    - `first_position`: the row of `positions` for the first token (RoBERTa keeps two more
      in front).
    """

    embedding: Float[Array, "vocabulary embedded"]
    positions: Float[Array, "places embedded"] | None
    segments: Float[Array, "kinds embedded"] | None
    lift: Linear | None
    control: AbstractControl
    constraint: AbstractControl
    input_normalization: AbstractConstraint
    output_normalization: AbstractConstraint
    pooler: Linear | None
    head: MaskedTokenHead | None
    discretization: Discretization
    first_position: int = eqx.field(static=True)
    context: int = eqx.field(static=True)

    def __init__(
        self,
        embedding: Float[Array, "vocabulary embedded"],
        *,
        control: AbstractControl,
        constraint: AbstractConstraint | AbstractControl,
        discretization: Discretization,
        context: int,
        positions: Float[Array, "places embedded"] | None = None,
        segments: Float[Array, "kinds embedded"] | None = None,
        lift: Linear | None = None,
        input_normalization: AbstractConstraint = Free(),
        output_normalization: AbstractConstraint = Free(),
        pooler: Linear | None = None,
        head: MaskedTokenHead | None = None,
        first_position: int = 0,
    ):
        self.embedding = embedding
        self.positions = positions
        self.segments = segments
        self.lift = lift
        self.control = control
        self.constraint = as_control(constraint, control)
        self.input_normalization = input_normalization
        self.output_normalization = output_normalization
        self.pooler = pooler
        self.head = head
        self.discretization = discretization
        self.first_position = first_position
        self.context = context

    @property
    def features(self) -> int:
        return (self.embedding if self.lift is None else self.lift.weight).shape[1]

    @property
    def domain(self) -> TokenDomain:
        return TokenDomain.uniform(self.context)

    def embed(
        self,
        inputs: Int[Array | np.ndarray, "*batch tokens"] | Text,
        *,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, "*batch tokens features"], TokenDomain]:
        text = as_text(inputs)
        text.check(vocabulary=self.embedding.shape[0], context=self.context)
        u = self.embedding[text.tokens]
        if self.positions is not None:
            places = slice(self.first_position, self.first_position + u.shape[-2])
            u = u + jnp.broadcast_to(self.positions[places], u.shape)
        if self.segments is not None:
            first = jnp.zeros(u.shape[-2], int)
            u = u + jnp.broadcast_to(
                self.segments[first if text.segments is None else text.segments], u.shape
            )
        u = self.input_normalization.project(u)
        return u if self.lift is None else self.lift(u), text.domain()

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
        if self.pooler is None:
            raise InputError(
                "This TextEncoder has no pooler; take sentence_embedding, or its states."
            )
        return jnp.tanh(self.pooler(states[..., 0, :]))

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


def sentence_embedding(
    model: TextEncoder, text: Text | Int[Array | np.ndarray, "*batch tokens"]
) -> Float[Array, "*batch features"]:
    """A vector of length one for each text: the mean of the states of its tokens, without
    padding. Reference: Reimers, Gurevych, arXiv 1908.10084."""
    return mean_vectors(model(text), as_text(text))


def mean_vectors(
    states: Float[Array, "*batch tokens features"], text: Text
) -> Float[Array, "*batch features"]:
    """The mean of states over tokens, without padding, scaled to length one."""
    weights = jnp.ones(states.shape[:-1]) if text.mask is None else jnp.asarray(text.mask)
    weights = weights[..., None].astype(states.dtype)
    mean = jnp.sum(weights * states, axis=-2) / jnp.sum(weights, axis=-2)
    length = jnp.sqrt(jnp.sum(mean**2, axis=-1, keepdims=True))
    return mean / jnp.maximum(length, 1e-12)
