import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Integer, PRNGKeyArray

from ..arguments import Fraction, NonNegativeFloat, PositiveInt
from ..equation import (
    AbstractConstraint,
    AbstractControl,
    Free,
    LayerNorm,
    Linear,
    TokenDomain,
    as_control,
    drop,
)
from ..errors import InputError
from .encoder_parts import after_prefix
from .model import Discretization
from .text import Text, rows
from .text_model import AbstractTextModel


class SequenceClassifier(AbstractTextModel):
    """A classifier of sequences: token and position embeddings, the equation without a causal
    order, the logits of the classes from the states at depth T,

        W mean_x N(u(x, T)) + b,    or    W N(u(0, T)) + b    with a class token at 0.

    `model(tokens)` maps integers `[..., tokens]`, or a `Text`, to logits `[..., classes]`.

    **Arguments:**

    - `vocabulary`, `context`, `classes`, `features`: sizes; `context` is the longest input.
    - `control`, `constraint`: as for `Equation`.
    - `discretization`: how the equation is solved.
    - `learned_positions`: whether to add a learned embedding of the position; without it the
      operators must see positions (rotary).
    - `class_token`: whether to read the class from an extra learned token before the others;
      otherwise from the mean over all of them, for which they must have no mask.
    - `input_normalization`, `output_normalization`: applied to the embedded input and before
      the read-out.
    - `dropout`: the rate on the embedded input.
    - `std`: the standard deviation of the initial embeddings.

    **Raises:** `InputError` for a text with a mask where there is no class token.
    """

    embedding: Float[Array, "vocabulary features"]
    positions: Float[Array, "context features"] | None
    prefix: tuple[Float[Array, " features"], ...]
    classifier: Linear
    control: AbstractControl
    constraint: AbstractControl
    input_normalization: AbstractConstraint
    output_normalization: AbstractConstraint
    discretization: Discretization
    context: int = eqx.field(static=True)
    dropout: float = eqx.field(static=True)

    def __init__(
        self,
        vocabulary: PositiveInt,
        context: PositiveInt,
        classes: PositiveInt,
        features: PositiveInt,
        *,
        control: AbstractControl,
        constraint: AbstractConstraint | AbstractControl,
        discretization: Discretization,
        key: PRNGKeyArray,
        learned_positions: bool = True,
        class_token: bool = False,
        input_normalization: AbstractConstraint = Free(),
        output_normalization: AbstractConstraint = LayerNorm(),
        dropout: Fraction = 0.0,
        std: NonNegativeFloat = 0.02,
    ):
        keys = jax.random.split(key, 3)
        self.embedding = std * jax.random.normal(keys[0], (vocabulary, features))
        places = std * jax.random.normal(keys[1], (context, features))
        self.positions = places if learned_positions else None
        self.prefix = (jnp.zeros(features),) if class_token else ()
        self.classifier = Linear(features, classes, bias=True, std=std, key=keys[2])
        self.control = control
        self.constraint = as_control(constraint, control)
        self.input_normalization = input_normalization
        self.output_normalization = output_normalization
        self.discretization = discretization
        self.context = context
        self.dropout = dropout

    @property
    def features(self) -> int:
        return self.embedding.shape[1]

    @property
    def domain(self) -> TokenDomain:
        return TokenDomain.uniform(len(self.prefix) + self.context)

    def embed(
        self,
        inputs: Integer[ArrayLike, "*batch tokens"] | Text,
        *,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, "*batch places features"], TokenDomain]:
        text = self.checked(inputs)
        u = rows(self.embedding, text.tokens)
        if self.positions is not None:
            u = u + jnp.broadcast_to(self.positions[: u.shape[-2]], u.shape)
        u = drop(after_prefix(self.prefix, u), self.dropout, key)
        u = self.input_normalization.project(u)
        return u, self._domain_of(text, u.shape[-2])

    def _domain_of(self, text: Text, tokens: int) -> TokenDomain:
        domain = TokenDomain.uniform(tokens)
        if text.mask is None:
            return domain
        if not self.prefix:
            raise InputError(
                "SequenceClassifier: the mean over all tokens would count padding, and the "
                "text has a mask; build the model with class_token=True, or give texts without "
                "one."
            )
        mask = jnp.asarray(text.mask, bool)
        seen = jnp.ones((*mask.shape[:-1], len(self.prefix)), bool)
        return domain.padded(jnp.concatenate([seen, mask], axis=-1))

    def read_out(
        self, u: Float[Array, "*batch tokens features"]
    ) -> Float[Array, "*batch classes"]:
        v = self.output_normalization.project(u)
        return self.classifier(v[..., 0, :] if self.prefix else jnp.mean(v, axis=-2))
