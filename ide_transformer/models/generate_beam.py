from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int, PyTree

from ..arguments import NonNegativeFloat, NonNegativeInt, PositiveInt, checked
from ..equation import TokenDomain, with_source
from ..errors import InputError
from ..integration import TokenCache
from .cached_decoder import CachedDecoder
from .causality import check_causal
from .encoded import Encoded
from .encoder_decoder import EncoderDecoder, SourceAndText
from .language_model import LanguageModel
from .text import as_text
from .writing import NO_TOKEN, check_written, usable


class _Beams(NamedTuple):
    """The candidates of one text.

    - `tokens`: `[beams, total]`.
    - `scores`: `[beams]`, the sum of the log probabilities of what was written.
    - `ended`: `[beams]`.
    - `logits`: `[beams, vocabulary]`, of the next token.
    - `cache`: with a leading axis of beams.
    """

    tokens: Int[Array, "beams total"]
    scores: Float[Array, " beams"]
    ended: Array
    logits: Float[Array, "beams vocabulary"]
    cache: TokenCache


@checked
def generate_beam(
    model: EncoderDecoder,
    source: PyTree[ArrayLike] | Encoded,
    prompt: Int[ArrayLike, "*batch prompt"],
    length: NonNegativeInt,
    *,
    end: NonNegativeInt,
    beams: PositiveInt = 4,
    length_penalty: NonNegativeFloat = 1.0,
) -> Int[Array, "*batch total"]:
    """Writes at most `length` tokens after `prompt` by beam search: it keeps the `beams` most
    likely texts of each length, and of those that have ended at last the one with the largest

        Σ_i log p(y_i | y_1 … y_{i-1}, source) / n^length_penalty,   n tokens written.

    One compiled loop; the encoder is solved once, and the decoder reads each token once, with
    the cache of a `CachedDecoder`. One beam is `generate_greedy`, which needs no cache.

    **Arguments:**

    - `source`: the inputs of the encoder, with the batch axes of `prompt`.
    - `prompt`: at least one token.
    - `end`: the token that ends a text; everything after it is this token too.
    - `length_penalty`: 0 compares probabilities, which prefers short texts; 1 their mean.

    **Returns:** prompt and text, `[..., prompt + length]`.

    **Raises:** `InputError` for an empty prompt, an end that is no token, a text longer than
    the context, other batch axes than those of the source, a decoder that cannot be cached
    (`why_not_cached`), and where a step fails or logits are not finite. Inside a compiled
    function such a token is -1.

    Source: Wu et al., "Google's neural machine translation system", 2016, arXiv 1609.08144.
    """
    check_causal("generate_beam", model)
    vocabulary = model.decoder.embedding.shape[0]
    as_text(prompt).check(vocabulary=vocabulary, context=model.context)
    tokens = jnp.asarray(prompt, int)
    first = tokens.shape[-1]
    if first + length > model.context or end >= vocabulary or beams > vocabulary:
        raise InputError(
            f"generate_beam: prompt={first} tokens, length={length}, end={end}, beams={beams}: "
            f"prompt and length together fit the context of {model.context}, end and beams the "
            f"vocabulary of {vocabulary}."
        )
    if not length:
        return tokens
    tokens = _generate(model, source, tokens, length, end, beams, length_penalty)
    check_written("generate_beam", tokens)
    return tokens


@eqx.filter_jit
def _generate(
    model: EncoderDecoder,
    source: PyTree,
    prompt: Int[Array, "*batch prompt"],
    length: int,
    end: int,
    beams: int,
    length_penalty: float,
) -> Int[Array, "*batch total"]:
    encoded = model.encoded(SourceAndText(source, prompt))
    if encoded.states.shape[:-2] != prompt.shape[:-1]:
        raise InputError(
            f"generate_beam: the prompt has batch axes {prompt.shape[:-1]}, but the source has "
            f"{encoded.states.shape[:-2]}; give a source for each prompt."
        )
    # Rounded before it has a source, whose states keep their dtype.
    control = model.decoder.rounded_control
    rounded = model.decoder.with_options(compute_dtype=None)

    def one(states: Array, weights: Array | None, prompt: Array) -> Array:
        domain = TokenDomain(TokenDomain.uniform(states.shape[-2]).points, weights)
        sourced = with_source(control, states, domain)
        decoder = eqx.tree_at(lambda x: x.control, rounded, sourced)
        return _search(decoder, prompt, length, end, beams, length_penalty)

    for _ in range(prompt.ndim - 1):
        one = jax.vmap(one, in_axes=(0, None if encoded.weights is None else 0, 0))
    return one(encoded.states, encoded.weights, prompt)


def _search(
    decoder: LanguageModel, prompt: Array, length: int, end: int, beams: int, penalty: float
) -> Int[Array, " total"]:
    """The text of one source, which is part of the decoder."""
    first, total = len(prompt), len(prompt) + length
    reader = CachedDecoder(decoder, total - 1)
    logits, cache = reader.prefill(prompt)
    tokens = jnp.full((beams, total), end, prompt.dtype).at[:, :first].set(prompt)
    # All beams begin with one text, so that only the first of them counts.
    scores = jnp.where(jnp.arange(beams) == 0, 0.0, -jnp.inf).astype(logits.dtype)
    start = _Beams(
        tokens,
        scores,
        jnp.zeros(beams, bool),
        jnp.broadcast_to(logits, (beams, *logits.shape)),
        jax.tree.map(lambda x: jnp.broadcast_to(x, (beams, *x.shape)), cache),
    )

    def going_on(state: tuple[Array, _Beams]) -> Array:
        position, found = state
        return (position < total) & ~jnp.all(found.ended)

    def step(state: tuple[Array, _Beams]) -> tuple[Array, _Beams]:
        position, found = state
        chosen, written = _longer(found, position, end)
        extend = jax.vmap(reader.extend, in_axes=(0, None, 0))
        last = jnp.minimum(position, total - 2)  # what follows the last token is not asked for
        logits, cache = extend(written, last, chosen.cache)
        return position + 1, chosen._replace(logits=logits, cache=cache)

    _, found = lax.while_loop(going_on, step, (jnp.asarray(first), start))
    stops = jnp.argmax(found.tokens[:, first:] == end, axis=1) + 1
    number = jnp.where(found.ended, stops, length)
    return found.tokens[jnp.argmax(found.scores / number**penalty)]


def _longer(found: _Beams, position: Array, end: int) -> tuple[_Beams, Int[Array, " beams"]]:
    """The most likely texts with one token more, and that token. A text that has ended goes on
    with its end, at no cost."""
    beams, vocabulary = found.logits.shape
    solved = jnp.all(usable(found.logits) | found.ended)  # else no beam has a token
    more = jax.nn.log_softmax(found.logits)
    only_end = jnp.where(jnp.arange(vocabulary) == end, 0.0, -jnp.inf).astype(more.dtype)
    more = jnp.where(found.ended[:, None], jnp.broadcast_to(only_end, more.shape), more)
    scores, places = lax.top_k((found.scores[:, None] + more).reshape(-1), beams)
    beam, written = jnp.divmod(places, vocabulary)
    tokens, ended, logits, cache = jax.tree.map(
        lambda x: x[beam], (found.tokens, found.ended, found.logits, found.cache)
    )
    written = jnp.where(solved, written, NO_TOKEN).astype(tokens.dtype)
    tokens = lax.dynamic_update_slice_in_dim(tokens, written[:, None], position, axis=1)
    return _Beams(tokens, scores, ended | (written == end), logits, cache), written
