"""Encoders with decoders: two equations, of which the second sees the states of the first."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Integer, PRNGKeyArray, PyTree

from ide_transformer.arguments import NonNegativeInt, check_fields, checked
from ide_transformer.equation import TokenDomain
from ide_transformer.errors import InputError
from ide_transformer.integration import Solution
from ide_transformer.models import (
    AbstractInputs,
    Embedded,
    Encoded,
    InputArrays,
    Model,
    States,
    Text,
    TextInputs,
    TokenLogits,
    generate,
)


class SourceAndText(NamedTuple):
    """Inputs of an `EncoderDecoder`, with the same batch axes.

    - `source`: the inputs of the encoder, or its output for them, `Encoded`.
    - `text`: the tokens of the decoder, `[..., tokens]`, or a `Text`.
    """

    source: PyTree[ArrayLike] | Encoded
    text: Integer[ArrayLike, "*batch tokens"] | Text


@checked
class EncodedInputs(AbstractInputs):
    """A `SourceAndText`: the final states of an encoder enter the equation of the text through
    cross-attention. Reference: Vaswani et al., arXiv 1706.03762."""

    encoder: Model[AbstractInputs, States]
    text: TextInputs

    @property
    def features(self) -> int:
        return self.text.features

    @property
    def domain(self) -> TokenDomain:
        return self.text.domain

    @property
    def vocabulary(self) -> int:
        """The number of tokens of the decoder."""
        return self.text.vocabulary

    @property
    def context(self) -> int:
        """The longest text, in tokens."""
        return self.text.context

    @property
    def embedding(self) -> Float[Array, "vocabulary features"]:
        """The token embeddings of the decoder, for its read-out."""
        return self.text.embedding

    def of_text(self, text: Text, given: SourceAndText | None = None) -> SourceAndText:
        """A text with the source of `given`, by default with a source of zeros."""
        if given is not None:
            return SourceAndText(given.source, text)
        batch = text.tokens.shape[:-1]
        return SourceAndText(Encoded(jnp.zeros((*batch, 1, self.encoder.features))), text)

    def encoded(
        self, source: PyTree[ArrayLike] | Encoded, *, key: PRNGKeyArray | None = None
    ) -> tuple[Encoded, tuple[Solution, ...]]:
        """The states of the encoder with the weights of their domain, and its solution, if it
        was solved for this."""
        if isinstance(source, Encoded):
            return check_fields(source), ()
        solution = self.encoder.solve(source, key=key)
        _, domain = self.encoder.embed(source)
        states = self.encoder.outputs(solution.u1)
        weights = domain.weights
        if weights is not None:
            weights = jnp.broadcast_to(weights, states.shape[:-1])
        return Encoded(states, weights), (solution,)

    def embed(self, inputs: SourceAndText, *, key: PRNGKeyArray | None = None) -> Embedded:
        if not isinstance(inputs, SourceAndText):
            kind = type(inputs).__name__
            raise InputError(f"EncodedInputs: got {kind}; pass SourceAndText(source, text).")
        text_key, encoder_key = (None, None) if key is None else jax.random.split(key)
        encoded, solutions = self.encoded(inputs.source, key=encoder_key)
        embedded = self.text.embed(inputs.text, key=text_key)
        return embedded._replace(encoded=encoded, before=solutions)


@checked
def EncoderDecoder(
    encoder: Model[AbstractInputs, States], decoder: Model[TextInputs, TokenLogits]
) -> Model[EncodedInputs, TokenLogits]:
    """Joins an encoder and a decoder. The final states f of the encoder on Ω_x' enter the
    equation of the decoder on Ω_x through cross-attention,

        v_t = Σ_i A_i(v; θ(t)),      v(0) = embedded source,   f = N(v(T)),
        u_t = Σ_j B_j(u, f; η(t)),   u(0) = embedded text,     logits = read-out of u(T'),

    each with a control, a constraint and a mesh. `model(SourceAndText(source, text))` returns
    the logits of the next token, `[..., tokens, vocabulary]`. The decoder needs
    `CrossAttention` among its operators. The encoder becomes `model.inputs.encoder`.
    """
    return decoder.with_inputs(EncodedInputs(encoder, decoder.inputs))


@checked
def generate_greedy(
    model: Model[EncodedInputs, TokenLogits],
    source: InputArrays | Encoded,
    prompt: Int[np.ndarray | Array, "*batch prompt"],
    length: NonNegativeInt,
    *,
    end: NonNegativeInt,
) -> Int[Array, "*batch total"]:
    """Generates at most `length` tokens after `prompt`, such as a translation or a transcript,
    always the most likely next token. The encoder is solved once. The decoder is solved for
    each token, in a compiled loop.

    **Arguments:**

    - `source`: the inputs of the encoder, with the batch axes of `prompt`.
    - `prompt`: at least one token (for Whisper: start of transcript, language, task).
    - `end`: the token that ends a text, and fills the rest.

    **Returns:** prompt and text, `[..., prompt + length]`.

    **Raises:** `InputError` for a text longer than the context, and as `generate` does.
    """
    text = model.inputs.text
    prompt = np.asarray(prompt)
    if prompt.shape[-1] + length > text.context:
        raise InputError(
            f"generate_greedy: length={length} must be at most "
            f"{text.context - prompt.shape[-1]}: the context is {text.context} tokens, the "
            f"prompt {prompt.shape[-1]}."
        )
    inputs = SourceAndText(_encode(model, source), jnp.asarray(prompt[..., :1]))
    tokens = generate(model, prompt, length, temperature=0.0, end=end, given=inputs)
    return jnp.asarray(tokens)


@eqx.filter_jit
def _encode(model: Model[EncodedInputs, Any], source: PyTree) -> Encoded:
    """The states of the encoder, NaN where its solve failed."""
    encoded, solutions = model.inputs.encoded(source)
    for solution in solutions:
        succeeded = solution.succeeded[..., None, None]
        encoded = encoded._replace(states=jnp.where(succeeded, encoded.states, jnp.nan))
    return encoded
