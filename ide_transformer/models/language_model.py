import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int, Integer, PRNGKeyArray

from ..arguments import Fraction, NonNegativeFloat, PositiveInt
from ..equation import (
    AbstractConstraint,
    AbstractControl,
    Free,
    Functional,
    FunctionSpace,
    LayerNorm,
    TokenDomain,
    as_control,
    drop,
    with_fields,
)
from ..errors import InputError
from ..solvers import AbstractMomentum, InitialVelocity, schemes_inside
from .model import Discretization
from .text import Text, rows
from .text_model import AbstractTextModel, token_logits


class LanguageModel(AbstractTextModel):
    """A causal language model: token and position embeddings, the equation, a read-out.

    `model(tokens)` maps `tokens: [..., tokens]`, integers, to the logits of the next token,
    `[..., tokens, vocabulary]`. Instead of `tokens` it also takes a `Text`.

    **Arguments:**

    - `vocabulary`, `context`, `features`: sizes; `context` is the longest input.
    - `control`: θ; its operators should be causal.
    - `constraint`: as for `Equation`.
    - `discretization`: how the equation is solved.
    - `learned_positions`: whether to add a learned embedding of the position; without it the
      operators must see positions (rotary).
    - `tied`: whether the read-out uses the token embedding.
    - `readout_bias`: whether the logits have a bias.
    - `embedding_scale`: multiplies the embedded tokens, not the read-out.
    - `input_normalization`, `output_normalization`: applied to the embedded input and before
      the read-out.
    - `dropout`: the rate on the embedded input.
    - `std`: the standard deviation of the initial embeddings.
    - `own_velocity`: whether the velocity of a scheme with momentum starts from a token
      embedding of its own, as in YuriiFormer (arXiv 2601.23236), and not at zero.
    """

    embedding: Float[Array, "vocabulary features"]
    positions: Float[Array, "context features"] | None
    readout: Float[Array, "vocabulary features"] | None
    readout_bias: Float[Array, " vocabulary"] | None
    velocity: Float[Array, "vocabulary features"] | None
    control: AbstractControl
    constraint: AbstractControl
    input_normalization: AbstractConstraint
    output_normalization: AbstractConstraint
    discretization: Discretization
    context: int = eqx.field(static=True)
    embedding_scale: float = eqx.field(static=True)
    dropout: float = eqx.field(static=True)

    def __init__(
        self,
        vocabulary: PositiveInt,
        context: PositiveInt,
        features: PositiveInt,
        *,
        control: AbstractControl,
        constraint: AbstractConstraint | AbstractControl,
        discretization: Discretization,
        key: PRNGKeyArray,
        learned_positions: bool = True,
        tied: bool = True,
        readout_bias: bool = False,
        embedding_scale: float = 1.0,
        input_normalization: AbstractConstraint = Free(),
        output_normalization: AbstractConstraint = LayerNorm(),
        dropout: Fraction = 0.0,
        std: NonNegativeFloat = 0.02,
        own_velocity: bool = False,
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
        self.readout_bias = jnp.zeros(vocabulary) if readout_bias else None
        self.velocity = (
            std * jax.random.normal(jax.random.fold_in(token_key, 1), (vocabulary, features))
            if own_velocity
            else None
        )
        self.control = control
        self.constraint = as_control(constraint, control)
        self.input_normalization = input_normalization
        self.output_normalization = output_normalization
        self.discretization = discretization
        self.context = context
        self.embedding_scale = embedding_scale
        self.dropout = dropout

    @property
    def features(self) -> int:
        return self.embedding.shape[1]

    @property
    def vocabulary(self) -> int:
        """The number of tokens that it knows."""
        return self.embedding.shape[0]

    def of_text(self, text: Text) -> Text:
        return text

    def at_points(self, space: FunctionSpace) -> "LanguageModel":
        """The read-out is an integral over y, so that it has weights of its own even where its
        coefficients are those of the embedding."""
        y = space.features
        readout = self.embedding if self.readout is None else self.readout
        tables = {
            "embedding": y.of_values(self.embedding),
            "positions": None if self.positions is None else y.of_values(self.positions),
            "velocity": None if self.velocity is None else y.of_values(self.velocity),
            "readout": y.of_duals(readout),
        }
        return with_fields(
            self,
            **tables,
            control=Functional(self.control, space),
            constraint=Functional(self.constraint, space),
            input_normalization=self.input_normalization.at_points(space),
            output_normalization=self.output_normalization.at_points(space),
        )

    def embed(
        self,
        inputs: Integer[ArrayLike, "*batch tokens"] | Text,
        *,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, "*batch tokens features"], TokenDomain]:
        text = self.checked(inputs)
        return self.embed_from(0, text.tokens, key=key), text.domain()

    def embed_from(
        self,
        start: Int[ArrayLike, ""],
        tokens: Integer[ArrayLike, "*batch tokens"],
        *,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "*batch tokens features"]:
        """The state at depth 0 of tokens at the positions from `start` on."""
        u = rows(self.embedding, tokens) * self.embedding_scale
        if self.positions is not None:
            positions = lax.dynamic_slice_in_dim(self.positions, start, u.shape[-2])
            u = u + jnp.broadcast_to(positions, u.shape)
        return self.input_normalization.project(drop(u, self.dropout, key))

    def initial_velocity(
        self, inputs: Integer[ArrayLike, "*batch tokens"] | Text
    ) -> InitialVelocity | None:
        if self.velocity is None:
            return None
        if not schemes_inside(self.discretization.solver, AbstractMomentum):
            name = type(self.discretization.solver).__name__
            raise InputError(
                f"own_velocity=True: {name} has no velocity that could start from it; take a "
                "scheme with momentum, such as Nesterov()."
            )
        return InitialVelocity(rows(self.velocity, self.checked(inputs).tokens))

    def read_out(
        self, u: Float[Array, "*batch tokens features"]
    ) -> Float[Array, "*batch tokens vocabulary"]:
        v = self.output_normalization.project(u)
        return token_logits(v, self.embedding, self.readout, self.readout_bias)
