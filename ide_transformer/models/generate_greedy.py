import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Int, PyTree

from ..arguments import NonNegativeInt, checked
from ..errors import InputError
from .causality import check_causal
from .encoded import Encoded
from .encoder_decoder import EncoderDecoder, SourceAndText
from .text import as_text
from .writing import NO_TOKEN, check_written, usable, where_solved


@checked
def generate_greedy(
    model: EncoderDecoder,
    source: PyTree[ArrayLike] | Encoded,
    prompt: Int[ArrayLike, "*batch prompt"],
    length: NonNegativeInt,
    *,
    end: NonNegativeInt,
) -> Int[Array, "*batch total"]:
    """Writes at most `length` tokens after `prompt`, each the most likely one given the source
    and those before it: a transcript, for a speech encoder. One compiled loop, which ends when
    all texts have; the encoder is solved once, the decoder again for each token.

    **Arguments:**

    - `source`: the inputs of the encoder, with the batch axes of `prompt`.
    - `prompt`: at least one token (for Whisper: start of transcript, language, task).
    - `end`: the token that ends a text; everything after it is this token too.

    **Returns:** prompt and text, `[..., prompt + length]`.

    **Raises:** `InputError` for an empty prompt, an end that is no token, a text longer than
    the context, a decoder that sees tokens still to be written, and where a solve fails or
    logits are not finite. Inside a compiled function such a token is -1.
    """
    check_causal("generate_greedy", model)
    vocabulary = model.decoder.embedding.shape[0]
    as_text(prompt).check(vocabulary=vocabulary, context=model.context)
    tokens = jnp.asarray(prompt, int)
    if tokens.shape[-1] == 0:
        raise InputError("generate_greedy: the prompt is empty; give it at least one token.")
    if tokens.shape[-1] + length > model.context:
        raise InputError(
            f"generate_greedy: {tokens.shape[-1]} tokens of prompt and length={length} do not "
            f"fit the context of {model.context}; choose a length from 0 to "
            f"{model.context - tokens.shape[-1]}."
        )
    if end >= vocabulary:
        raise InputError(
            f"generate_greedy: end={end}, but the model knows the tokens 0 to "
            f"{vocabulary - 1}; take the end of text of its tokenizer."
        )
    tokens = _generate(model, source, tokens, length, jnp.asarray(end, int))
    check_written("generate_greedy", tokens)
    return tokens


@eqx.filter_jit
def _generate(model, source, prompt, length: int, end):
    encoded = model.encoded(SourceAndText(source, prompt))
    first, total = prompt.shape[-1], prompt.shape[-1] + length
    tokens = jnp.full((*prompt.shape[:-1], total), end)
    tokens = lax.dynamic_update_slice_in_dim(tokens, prompt, 0, axis=-1)

    def going_on(state):
        position, _, ended = state
        return (position < total) & ~jnp.all(ended)

    def step(state):
        position, tokens, ended = state
        # The tokens not written yet are not seen by a causal decoder.
        solution = model.solve(SourceAndText(encoded, tokens))
        last = lax.dynamic_slice_in_dim(solution.u1, position - 1, 1, axis=-2)
        logits = where_solved(model.read_out(last)[..., 0, :], solution.succeeded)
        best = jnp.where(usable(logits), jnp.argmax(logits, axis=-1), NO_TOKEN)
        best = best.astype(tokens.dtype)
        best = jnp.where(ended, end, best)
        tokens = lax.dynamic_update_slice_in_dim(tokens, best[..., None], position, axis=-1)
        return position + 1, tokens, ended | (best == end)

    ended = jnp.zeros(prompt.shape[:-1], bool)
    return lax.while_loop(going_on, step, (jnp.asarray(first), tokens, ended))[1]
