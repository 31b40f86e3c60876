from typing import NamedTuple

import equinox as eqx
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray, PyTree

from ..arguments import check_fields
from ..equation import AbstractControl, TokenDomain
from .encoded import Encoded
from .language_model import LanguageModel
from .model import AbstractModel, Discretization
from .text import Text


class SourceAndText(NamedTuple):
    """Inputs of an `EncoderDecoder`, with the same batch axes.

    - `source`: the inputs of the encoder, or an `Encoded` that it made of them before.
    - `text`: the tokens of the decoder, `[..., tokens]`, or a `Text`.
    """

    source: PyTree[ArrayLike] | Encoded
    text: Int[ArrayLike, "*batch tokens"] | Text


class EncoderDecoder(AbstractModel):
    """Two equations, one after the other: the encoder is solved to depth T, and its states f
    on Ω_x' enter the equation of the decoder on Ω_x through cross-attention,

        v_t = Σ_i A_i(v; θ(t)),      v(0) = embedded source,   f = N(v(T)),
        u_t = Σ_j B_j(u, f; η(t)),   u(0) = embedded text,     logits = read-out of u(T'),

    with a control, a constraint and a discretization for each.

    `model(SourceAndText(source, text))` gives the logits of the next token,
    `[..., tokens, vocabulary]`. Its control, constraint, discretization and equation are
    those of the decoder, and `with_solver` changes the solver of the decoder.
    `model.encoder` is a model of its own: change its solver by
    `model.with_encoder(model.encoder.with_solver(…))`. Only a solve of its own tells whether
    it succeeded. Reference: Vaswani et al., arXiv 1706.03762.

    **Arguments:**

    - `encoder`: a model whose outputs are states, `[..., tokens, features]`.
    - `decoder`: a language model with `CrossAttention` among its operators.
    """

    encoder: AbstractModel
    decoder: LanguageModel

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
    def features(self) -> int:
        return self.decoder.features

    @property
    def domain(self) -> TokenDomain:
        return self.decoder.domain

    def with_encoder(self, encoder: AbstractModel) -> "EncoderDecoder":
        """The same decoder with another encoder."""
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
        return self.decoder.embed(inputs.text, key=key)

    def read_out(
        self, u: Float[Array, "*batch tokens features"]
    ) -> Float[Array, "*batch tokens vocabulary"]:
        return self.decoder.read_out(u)
