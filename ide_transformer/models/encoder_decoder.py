from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Integer, PRNGKeyArray, PyTree

from ..arguments import Fraction, NonNegativeFloat, PositiveInt, check_fields, checked
from ..equation import AbstractConstraint, AbstractControl, Free, LayerNorm, TokenDomain
from ..errors import InputError
from .encoded import Encoded
from .language_model import LanguageModel
from .model import Discretization, Model
from .text import Text
from .text_encoder import TextEncoder


class SourceAndText(NamedTuple):
    """Inputs of an `EncoderDecoder`, with the same batch axes.

    - `source`: the inputs of the encoder, or an `Encoded` that it made of them before.
    - `text`: the tokens of the decoder, `[..., tokens]`, or a `Text`.
    """

    source: PyTree[ArrayLike] | Encoded
    text: Integer[ArrayLike, "*batch tokens"] | Text


class EncoderDecoder(Model):
    """Two equations, one after the other: the encoder is solved to depth T, and its states f
    on Ω_x' enter the equation of the decoder on Ω_x through cross-attention,

        v_t = Σ_i A_i(v; θ(t)),      v(0) = embedded source,   f = N(v(T)),
        u_t = Σ_j B_j(u, f; η(t)),   u(0) = embedded text,     logits = read-out of u(T'),

    with a control, a constraint and a discretization for each.

    `model(SourceAndText(source, text))` gives the logits of the next token,
    `[..., tokens, vocabulary]`. Its control, constraint, discretization and equation are
    those of the decoder, and `with_solver` changes the solver of the decoder; `on` and
    `with_options` change both, but for an exit, which is the decoder's. `model.encoder` is a
    model of its own: change its solver by `model.with_encoder(model.encoder.with_solver(…))`.
    Only a solve of its own tells whether it succeeded. Reference: Vaswani et al., arXiv
    1706.03762.

    **Arguments:**

    - `encoder`: a model whose outputs are states, `[..., tokens, features]`.
    - `decoder`: a language model with `CrossAttention` among its operators.
    """

    encoder: Model
    decoder: LanguageModel

    @classmethod
    @checked
    def build(
        cls,
        vocabulary: PositiveInt,
        context: PositiveInt,
        features: PositiveInt,
        *,
        control: AbstractControl,
        make_encoder_control: Callable[[], AbstractControl],
        constraint: AbstractConstraint | AbstractControl,
        discretization: Discretization,
        key: PRNGKeyArray,
        learned_positions: bool = True,
        tied: bool = True,
        input_normalization: AbstractConstraint = Free(),
        output_normalization: AbstractConstraint = LayerNorm(),
        dropout: Fraction = 0.0,
        std: NonNegativeFloat = 0.02,
    ) -> "EncoderDecoder":
        """A model to be trained that reads and writes texts of one vocabulary, each of at most
        `context` tokens; see `LanguageModel`.

        **Arguments:**

        - `control`: that of the decoder.
        - `make_encoder_control`: makes that of the encoder, whose attention sees all of a text.

        **Raises:** `InputError` for a constraint with weights, which each of the two would
        need.
        """
        if not isinstance(constraint, AbstractConstraint):
            raise InputError(
                "EncoderDecoder: a constraint with weights belongs to one of its two "
                "equations; take a set without, such as Sphere() or Free()."
            )
        keys = jax.random.split(key, 3)
        options: Any = dict(
            constraint=constraint,
            discretization=discretization,
            input_normalization=input_normalization,
            output_normalization=output_normalization,
        )
        positions = std * jax.random.normal(keys[1], (context, features))
        encoder = TextEncoder(
            std * jax.random.normal(keys[0], (vocabulary, features)),
            positions=positions if learned_positions else None,
            control=make_encoder_control(),
            context=context,
            **options,
        )
        decoder = LanguageModel(
            vocabulary,
            context,
            features,
            control=control,
            learned_positions=learned_positions,
            tied=tied,
            dropout=dropout,
            std=std,
            key=keys[2],
            **options,
        )
        return cls(encoder, decoder)

    @property
    def control(self) -> AbstractControl:
        return self.decoder.control

    @property
    def constraint(self) -> AbstractControl:
        return self.decoder.constraint

    @property
    def discretization(self) -> Discretization:
        return self.decoder.discretization

    @property
    def context(self) -> int:
        """The longest text, in tokens."""
        return self.decoder.context

    @property
    def vocabulary(self) -> int:
        """The number of tokens that the decoder knows."""
        return self.decoder.vocabulary

    def of_text(self, text: Text) -> "SourceAndText":
        """The text after a source whose states are zero."""
        batch = text.tokens.shape[:-1]
        return SourceAndText(Encoded(jnp.zeros((*batch, 1, self.encoder.features))), text)

    @property
    def features(self) -> int:
        return self.decoder.features

    @property
    def domain(self) -> TokenDomain:
        return self.decoder.domain

    @property
    def random(self) -> bool:
        return super().random or self.encoder.random

    def with_options(self, **options) -> "EncoderDecoder":
        of_encoder = {name: x for name, x in options.items() if name != "exit"}
        changed: Any = super().with_options(**options)
        return changed.with_encoder(self.encoder.with_options(**of_encoder))

    def _in_depth(
        self, change: Callable[[AbstractControl], AbstractControl]
    ) -> "EncoderDecoder":
        """Change all that depends on depth, of both equations."""
        changed: Any = super()._in_depth(change)
        return changed.with_encoder(changed.encoder._in_depth(change))

    def with_encoder(self, encoder: Model) -> "EncoderDecoder":
        """Exchange the encoder."""
        return eqx.tree_at(lambda model: model.encoder, self, encoder)

    def encoded(self, inputs: SourceAndText, *, key: PRNGKeyArray | None = None) -> Encoded:
        """The states of the encoder at its depth T, and the weights of their domain."""
        if isinstance(inputs.source, Encoded):
            check_fields(inputs.source)
            return inputs.source
        states = self.encoder(inputs.source, key=key)
        _, domain = self.encoder.embed(inputs.source)
        return Encoded.on(domain, states)

    def embed(
        self, inputs: SourceAndText, *, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*batch tokens features"], TokenDomain]:
        if not isinstance(inputs, SourceAndText):
            raise InputError(
                f"EncoderDecoder: inputs of {type(inputs).__name__}; it reads a source and "
                "writes a text: give SourceAndText(source, text)."
            )
        return self.decoder.embed(inputs.text, key=key)

    def read_out(
        self, u: Float[Array, "*batch tokens features"]
    ) -> Float[Array, "*batch tokens vocabulary"]:
        return self.decoder.read_out(u)
