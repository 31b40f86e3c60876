import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray

from ..equation import (
    AbstractConstraint,
    AbstractControl,
    Free,
    LayerNorm,
    TokenDomain,
    as_control,
    drop,
)
from ..errors import InputError
from .model import AbstractModel, Scheme


class LanguageModel(AbstractModel):
    """A causal language model: token and position embeddings, the equation, a read-out.

    `model(tokens)` maps `tokens: [..., tokens]`, integers, to the logits of the next token,
    `[..., tokens, vocabulary]`.

    **Arguments:**

    - `vocabulary`, `context`, `features`: sizes; `context` is the longest input.
    - `control`: θ; its operators should be causal.
    - `constraint`: as for `Equation`.
    - `scheme`: how the equation is solved.
    - `learned_positions`: whether to add a learned embedding of the position; without it the
      operators have to see positions (rotary).
    - `tied`: whether the read-out uses the token embedding.
    - `input_normalization`, `output_normalization`: applied to the embedded input and before
      the read-out.
    - `dropout`: rate on the embedded input.
    - `std`: standard deviation of the initial embeddings.
    """

    embedding: Float[Array, "vocabulary features"]
    positions: Float[Array, "context features"] | None
    readout: Float[Array, "vocabulary features"] | None
    control: AbstractControl
    constraint: AbstractControl
    input_normalization: AbstractConstraint
    output_normalization: AbstractConstraint
    scheme: Scheme
    context: int = eqx.field(static=True)
    dropout: float = eqx.field(static=True)

    def __init__(
        self,
        vocabulary: int,
        context: int,
        features: int,
        *,
        control: AbstractControl,
        constraint: AbstractConstraint | AbstractControl,
        scheme: Scheme,
        key: PRNGKeyArray,
        learned_positions: bool = True,
        tied: bool = True,
        input_normalization: AbstractConstraint = Free(),
        output_normalization: AbstractConstraint = LayerNorm(),
        dropout: float = 0.0,
        std: float = 0.02,
    ):
        token_key, position_key, readout_key = jax.random.split(key, 3)
        self.embedding = std * jax.random.normal(token_key, (vocabulary, features))
        self.positions = (
            std * jax.random.normal(position_key, (context, features))
            if learned_positions
            else None
        )
        self.readout = (
            None if tied else std * jax.random.normal(readout_key, (vocabulary, features))
        )
        self.control = control
        self.constraint = as_control(constraint, control)
        self.input_normalization = input_normalization
        self.output_normalization = output_normalization
        self.scheme = scheme
        self.context = context
        self.dropout = dropout

    @property
    def domain(self) -> TokenDomain:
        return TokenDomain.uniform(self.context)

    def embed(
        self, inputs: Int[ArrayLike, "*batch tokens"], *, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*batch tokens features"], TokenDomain]:
        inputs = jnp.asarray(inputs)
        tokens = inputs.shape[-1]
        if tokens > self.context:
            raise InputError(
                f"LanguageModel: an input of {tokens} tokens is longer than the context of "
                f"{self.context} that the model was built for."
            )
        u = self.embedding[inputs]
        if self.positions is not None:
            u = u + jnp.broadcast_to(self.positions[:tokens], u.shape)
        u = self.input_normalization.project(drop(u, self.dropout, key))
        return u, TokenDomain.uniform(tokens)

    def read_out(
        self, u: Float[Array, "*batch tokens features"]
    ) -> Float[Array, "*batch tokens vocabulary"]:
        weight = self.embedding if self.readout is None else self.readout
        return self.output_normalization.project(u) @ weight.T
