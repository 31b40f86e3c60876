"""Texts that an encoder and decoder write of a source."""

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
from .chains import EncodedInputs, SourceAndText
from .generate import NO_TOKEN, check_written, usable, where_solved
from .model import Model
from .parts import Encoded
from .read_outs import TokenLogits
from .text import as_text
from .text_inputs import TextInputs


@checked
def generate_greedy(
    model: Model[EncodedInputs, TokenLogits],
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
    tokens = _checked("generate_greedy", model, prompt, length, end)
    tokens = _generate_greedy(model, source, tokens, length, jnp.asarray(end, int))
    check_written("generate_greedy", tokens)
    return tokens


@checked
def generate_beam(
    model: Model[EncodedInputs, TokenLogits],
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
    tokens = _checked("generate_beam", model, prompt, length, end)
    if beams > model.inputs.vocabulary:
        raise InputError(
            f"generate_beam: beams={beams}, but the model knows {model.inputs.vocabulary} "
            "tokens; give at most as many."
        )
    if not length:
        return tokens
    tokens = _generate_beam(model, source, tokens, length, end, beams, length_penalty)
    check_written("generate_beam", tokens)
    return tokens


def _checked(
    name: str,
    model: Model[EncodedInputs, TokenLogits],
    prompt: Int[ArrayLike, "*batch prompt"],
    length: int,
    end: int,
) -> Int[Array, "*batch prompt"]:
    """The tokens of the prompt, after which so many can be written."""
    check_causal(name, model)
    vocabulary, context = model.inputs.vocabulary, model.inputs.context
    as_text(prompt).check(vocabulary=vocabulary, context=context)
    tokens = jnp.asarray(prompt, int)
    if tokens.shape[-1] + length > context:
        raise InputError(
            f"{name}: {tokens.shape[-1]} tokens of prompt and length={length} do not fit the "
            f"context of {context}; choose a length from 0 to {context - tokens.shape[-1]}."
        )
    if end >= vocabulary:
        raise InputError(
            f"{name}: end={end}, but the model knows the tokens 0 to {vocabulary - 1}; take "
            "the end of text of its tokenizer."
        )
    return tokens


def _encoded(model: Model[EncodedInputs, TokenLogits], source: PyTree) -> Encoded:
    """The states of the encoder, NaN where its solve failed."""
    encoded, before = model.inputs.encoded(source)
    for solution in before:
        succeeded = solution.succeeded[..., None, None]
        encoded = encoded._replace(states=jnp.where(succeeded, encoded.states, jnp.nan))
    return encoded


@eqx.filter_jit
def _generate_greedy(model, source, prompt, length: int, end):
    encoded = _encoded(model, source)
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
        logits = where_solved(model.outputs(last)[..., 0, :], solution.succeeded)
        best = jnp.where(usable(logits), jnp.argmax(logits, axis=-1), NO_TOKEN)
        best = best.astype(tokens.dtype)
        best = jnp.where(ended, end, best)
        tokens = lax.dynamic_update_slice_in_dim(tokens, best[..., None], position, axis=-1)
        return position + 1, tokens, ended | (best == end)

    ended = jnp.zeros(prompt.shape[:-1], bool)
    return lax.while_loop(going_on, step, (jnp.asarray(first), tokens, ended))[1]


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


@eqx.filter_jit
def _generate_beam(
    model: Model[EncodedInputs, TokenLogits],
    source: PyTree,
    prompt: Int[Array, "*batch prompt"],
    length: int,
    end: int,
    beams: int,
    length_penalty: float,
) -> Int[Array, "*batch total"]:
    encoded = _encoded(model, source)
    if encoded.states.shape[:-2] != prompt.shape[:-1]:
        raise InputError(
            f"generate_beam: the prompt has batch axes {prompt.shape[:-1]}, but the source has "
            f"{encoded.states.shape[:-2]}; give a source for each prompt."
        )
    # Rounded before it has a source, whose states keep their dtype.
    control = model.rounded_control
    rounded = model.with_inputs(model.inputs.text).with_options(compute_dtype=None)

    def one(states: Array, weights: Array | None, prompt: Array) -> Array:
        domain = TokenDomain(TokenDomain.uniform(states.shape[-2]).points, weights)
        sourced = with_source(control, states, domain)
        decoder = eqx.tree_at(lambda x: x.control, rounded, sourced)
        return _search(decoder, prompt, length, end, beams, length_penalty)

    for _ in range(prompt.ndim - 1):
        one = jax.vmap(one, in_axes=(0, None if encoded.weights is None else 0, 0))
    return one(encoded.states, encoded.weights, prompt)


def _search(
    decoder: Model[TextInputs, TokenLogits],
    prompt: Array,
    length: int,
    end: int,
    beams: int,
    penalty: float,
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
