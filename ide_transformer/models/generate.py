"""Texts that a model writes: drawn, or the most likely ones after a source."""

import math
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Integer, PRNGKeyArray, PyTree

from ..arguments import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFraction,
    PositiveInt,
    checked,
    is_known,
)
from ..errors import InputError
from .cached_decoder import CachedDecoder, why_not_cached
from .causality import check_causal
from .chains import EncodedInputs, SourceAndText
from .compiled import padded_source, size_of
from .model import Model
from .parts import Encoded, InputArrays, Text
from .read_outs import TokenLogits
from .text_inputs import as_text, checked_text


# Stands in a text where there were no logits to take a token by.
NO_TOKEN = -1
# Tokens of all texts that are written at once, prompts included.
_MOST_TOKENS = 2**24


@runtime_checkable
class Tokens(Protocol):
    """Text to tokens and back, such as the tokenizers of `ide_transformer.tasks`."""

    def encode(self, text: str) -> np.ndarray: ...

    def decode(self, tokens: np.ndarray) -> str: ...


# Tokens `[..., prompt]`, a `Text`, a string, or several.
Prompt = TypeVar("Prompt", Integer[Array | np.ndarray, "..."], Text, str, list[str])


class Draw(NamedTuple):
    """Options by which a token is drawn, see `generate`."""

    temperature: float | np.ndarray = 1.0
    top_k: int | None = None
    top_p: float | np.ndarray | None = None

    def traced(self) -> "Draw":
        """The same options, as arrays where other numbers are no other program."""
        top_p = None if self.top_p is None else np.asarray(self.top_p, float)
        temperature = self.temperature and np.asarray(self.temperature, float)
        return self._replace(temperature=temperature, top_p=top_p)

    def __call__(
        self, logits: Float[Array, "*batch vocabulary"], key: PRNGKeyArray
    ) -> Int[Array, "*batch"]:
        """One token from `softmax(logits / temperature)`, or the most likely one."""
        if is_known(self.temperature) and self.temperature == 0:
            return jnp.argmax(logits, axis=-1)
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            smallest = lax.top_k(logits, self.top_k)[0][..., -1:]
            logits = jnp.where(logits < smallest, -jnp.inf, logits)
        # The largest becomes 0, so that the others cannot overflow to +inf.
        logits = logits - jnp.max(logits, axis=-1, keepdims=True)
        temperature = jnp.asarray(self.temperature, logits.dtype)
        logits = logits / jnp.maximum(temperature, jnp.finfo(logits.dtype).tiny)
        if self.top_p is not None:
            descending = jnp.sort(logits, axis=-1, descending=True)
            probabilities = jax.nn.softmax(descending, axis=-1)
            before = jnp.cumsum(probabilities, axis=-1) - probabilities
            top_p = jnp.asarray(self.top_p, before.dtype)
            kept = jnp.where(before < top_p, descending, jnp.inf)
            logits = jnp.where(logits < jnp.min(kept, -1, keepdims=True), -jnp.inf, logits)
        return jax.random.categorical(key, logits, axis=-1)


@checked
def generate(
    model: Model,
    prompt: Prompt,
    length: NonNegativeInt,
    *,
    key: PRNGKeyArray | None = None,
    temperature: NonNegativeFloat = 1.0,
    top_k: PositiveInt | None = None,
    top_p: PositiveFraction | None = None,
    tokenizer: Tokens | None = None,
) -> Prompt:
    """Draws `length` tokens after `prompt`, each from the distribution of the model given
    the last `context` tokens. One compiled program, the same for all prompts and lengths that
    fit into it: it has room for 256 tokens, for 1024, and so on, up to the context.

        loaded = ide.load_model("runs/shakespeare")
        ide.generate(loaded.model, "To be", 100, temperature=0.0, tokenizer=loaded.tokenizer)

    The tokens read so far are kept in the cache of a `CachedDecoder`, unless
    `why_not_cached(model)` says why not. Then, and beyond the context, where all positions
    move with each token, the equation is solved again for each. The tokens are the same.

    **Arguments:**

    - `prompt`: at least one token; a string, or a list of them; or a `Text` for prompts of
      different lengths, its mask `False` at the padding behind each.
    - `key`: draws the tokens; needed at a temperature above 0.
    - `temperature`: divides the logits; 0 takes the most likely token.
    - `top_k`, `top_p`: draw from the k most likely tokens only; from the most likely ones, as
      few as have this probability together (Holtzman et al., arXiv 1904.09751).
    - `tokenizer`: the one that belongs to the model, for strings.

    **Returns:** `[..., prompt + length]`: each prompt and, right behind its last token, what
    was drawn. For a `Text` it is one, whose mask says where each ends; for strings, strings.

    **Raises:** `InputError` for an empty prompt, padding before a token, more than 16,777,216
    tokens in all, a model that sees tokens still to be written, and where a solve fails or
    logits are not finite. Inside a compiled function such a token is -1, and so are all of a
    prompt with padding before one.
    """
    options = Draw(temperature, top_k, top_p)
    if key is None and temperature > 0:
        raise InputError(
            f"generate: temperature={temperature} draws at random; give key=jax.random.key(0), "
            "or temperature=0 for the most likely tokens."
        )
    if isinstance(prompt, str | list):
        if tokenizer is None:
            raise InputError(
                "generate: for a string give tokenizer=load_model(path).tokenizer."
            )
        several = isinstance(prompt, list)
        for text in prompt if several else [prompt]:
            # So bytes of a terminal that are no text arrive.
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise InputError(f"generate: prompt={text!a} is not valid UTF-8; write it so.")
        encoded = [tokenizer.encode(text) for text in (prompt if several else [prompt])]
        if not all(map(len, encoded)):
            raise InputError("generate: a prompt is empty; give each at least one character.")
        given = _side_by_side(encoded)
        drawn = as_text(generate(model, given, length, key=key, **options._asdict()))
        rows = zip(np.asarray(drawn.tokens), encoded, strict=True)
        texts: Any = [tokenizer.decode(row[: len(x) + length]) for row, x in rows]
        return texts if several else texts[0]
    check_causal("generate", model)
    text = checked_text(prompt, model.inputs.vocabulary, context=2**31)
    tokens = _as_integers(text.tokens)
    ends, behind = (tokens.shape[-1], None) if text.mask is None else _ends(text.mask)
    number = math.prod(tokens.shape[:-1]) * (tokens.shape[-1] + length)
    if number > _MOST_TOKENS:
        raise InputError(
            f"generate: length={length}: that is {number:,} tokens in all, and at most "
            f"{_MOST_TOKENS:,} are written at once; give fewer, and write on from the last."
        )
    # `Any`, since a checker does not see that the kind of the prompt decides.
    tokens: Any = write(model, tokens, ends, length, options, key)
    _check_written("generate", tokens)
    if behind is None:
        return tokens
    array = _library(tokens, behind)
    mask = _before(ends + length, array.asarray(tokens))
    tokens = array.where(mask, array.asarray(tokens), 0)
    tokens = array.where(array.asarray(behind)[..., None], tokens, NO_TOKEN)
    return jax.device_put(Text(tokens, mask))


@checked
def generate_greedy(
    model: Model[EncodedInputs, TokenLogits],
    source: InputArrays | Encoded,
    prompt: Int[ArrayLike, "*batch prompt"],
    length: NonNegativeInt,
    *,
    end: NonNegativeInt,
) -> Int[Array, "*batch total"]:
    """Writes at most `length` tokens after `prompt`, each the most likely one given the source
    and those before it: a transcript, for a speech encoder. One compiled loop, which ends when
    all texts have; the encoder is solved once, the decoder again for each token.

    **Arguments:**

    - `source`: the inputs of the encoder, with the batch axes of `prompt`. Of a `Text` with a
      mask other lengths are no other program.
    - `prompt`: at least one token (for Whisper: start of transcript, language, task).
    - `end`: the token that ends a text; everything after it is this token too.

    **Returns:** prompt and text, `[..., prompt + length]`.

    **Raises:** `InputError` for an empty prompt, an end that is no token, a text longer than
    the context, a decoder that sees tokens still to be written, and where a solve fails or
    logits are not finite. Inside a compiled function such a token is -1.
    """
    check_causal("generate_greedy", model)
    vocabulary, context = model.inputs.vocabulary, model.inputs.context
    tokens = _as_integers(checked_text(prompt, vocabulary, context).tokens)
    if tokens.shape[-1] + length > context:
        raise InputError(
            f"generate_greedy: length={length} after {tokens.shape[-1]} tokens, in a context "
            f"of {context}; choose a length from 0 to {context - tokens.shape[-1]}."
        )
    if end >= vocabulary:
        raise InputError(f"generate_greedy: end={end}: the last token is {vocabulary - 1}.")
    ends, draw, source = tokens.shape[-1], Draw(temperature=0.0), padded_source(model, source)
    tokens = write(model, tokens, ends, length, draw, source=source, end=end)
    _check_written("generate_greedy", tokens)
    return tokens


def _check_written(name: str, tokens: Int[Array, "*batch total"]) -> None:
    """Refuses a text in which a token could not be written; traced ones are not checked."""
    if is_known(tokens) and (missing := np.asarray(tokens) == NO_TOKEN).any():
        place = missing.reshape(-1, tokens.shape[-1]).any(axis=0).argmax()
        raise InputError(
            f"{name}: the token at position {place} could not be written: its logits are not "
            "finite, or its solve failed. Look at the weights, or take more steps."
        )


def _side_by_side(texts: list[np.ndarray]) -> Any:
    """Tokens of several texts, as a `Text` with padding behind the shorter ones."""
    ends = np.array([len(text) for text in texts], int)
    mask = np.arange(ends.max(initial=0)) < ends[:, None]
    tokens = np.zeros(mask.shape, int)
    tokens[mask] = np.concatenate([np.zeros(0, int), *texts])
    return tokens if len(texts) == 1 else Text(tokens, mask)


def _as_integers(tokens: Array | np.ndarray) -> Any:
    """In NumPy where they are known, which compiles nothing."""
    return np.asarray(tokens, int) if is_known(tokens) else jnp.asarray(tokens, int)


def _ends(
    mask: Array | np.ndarray,
) -> tuple[Int[Array | np.ndarray, "*batch"], Bool[Array | np.ndarray, "*batch"]]:
    """The number of tokens of each prompt, and whether its padding is behind them."""
    mask = np.asarray(mask, bool) if is_known(mask) else mask.astype(bool)
    behind = mask[..., 0] & (mask[..., 1:] <= mask[..., :-1]).all(axis=-1)
    if is_known(behind) and not behind.all():
        raise InputError(
            "generate: the mask of a prompt is False before a token; its padding stands behind."
        )
    return mask.sum(axis=-1), behind


def _places(tokens: Int[Array, "*batch total"]) -> Int[Array, "*batch total"]:
    return jnp.broadcast_to(jnp.arange(tokens.shape[-1]), tokens.shape)


def write(
    model: Model,
    prompt: Int[Array | np.ndarray, "*batch prompt"],
    ends: Int[Array | np.ndarray, "*#batch"] | int,
    length: int,
    draw: Draw,
    key: PRNGKeyArray | None = None,
    *,
    source: PyTree = None,
    end: int | None = None,
    cached: bool = True,
) -> Int[Array, "*batch total"]:
    """Draw so many tokens after prompts of the lengths `ends`, read by a `CachedDecoder` as far
    as there can be one and `cached`; one program for all lengths of a size."""
    if not length:
        return jax.device_put(prompt)
    longest, context = prompt.shape[-1], model.inputs.context
    total = longest + length
    cached = cached and why_not_cached(model) is None
    # The last of the tokens in here is drawn where the context is full.
    most = context + 1
    if total > most:
        size = size_of(total, context, 4)
    else:
        # Without a cache all of it is solved for each token.
        size = min(size_of(total, 256, 4) if cached else size_of(total, 16, 2), most)
    tokens, stops = _with_room(prompt, ends, size, end), end is not None
    given, most, stop = map(np.asarray, (longest, length, end if stops else NO_TOKEN))
    numbers = _library(ends).asarray(ends), given, most, stop
    options = draw.traced(), key, source, stops, cached
    written = _written(model, tokens, *numbers, *options)
    return jax.device_put(_library(written).asarray(written)[..., :total])


def _library(*arrays: Any) -> Any:
    """NumPy for arrays that are known: it compiles nothing."""
    return np if all(map(is_known, arrays)) else jnp


def _with_room(prompt: Any, ends: Any, size: int, end: int | None) -> Any:
    """Prompts of so many tokens, the last of which are to be written."""
    array = _library(prompt, ends)
    room = [(0, 0)] * (prompt.ndim - 1) + [(0, size - prompt.shape[-1])]
    tokens = array.pad(array.asarray(prompt), room)
    # A causal model does not see what stands behind a text. No failure begins there.
    behind = tokens[..., :1] if end is None else array.asarray(end, tokens.dtype)
    return array.where(_before(ends, tokens), tokens, behind)


def _before(ends: Any, tokens: Any) -> Any:
    """Whether each token of a text is before its end."""
    array, batch = _library(ends, tokens), tokens.shape[:-1]
    ends = array.broadcast_to(array.asarray(ends), batch)[..., None]
    return array.broadcast_to(array.arange(tokens.shape[-1]), tokens.shape) < ends


@eqx.filter_jit
def _written(model, tokens, ends, longest, length, end, draw, key, source, stops, cached):
    """Prompts and what follows them, see `write`; the longest has so many tokens."""
    key = jax.random.key(0) if key is None else key  # at temperature 0 it draws nothing
    encoded = None if source is None else _encoded(model, source)
    context, (*batch, size) = model.inputs.context, tokens.shape
    window = min(context, size)
    each = jnp.broadcast_to(ends, batch)

    def put(tokens, ended, number, logits):
        """The text with its token `number` drawn, whether it has ended, and that token."""
        if logits.shape[-1] != model.inputs.vocabulary:
            raise InputError("generate: give a model whose read-out is TokenLogits.")
        drawn = draw(logits, jax.random.fold_in(key, longest + number))
        # A token can be drawn where none of the logits is NaN or infinite, but for `-inf`.
        usable = jnp.isfinite(jnp.max(logits, axis=-1))
        drawn = jnp.where(usable, drawn, NO_TOKEN).astype(tokens.dtype)
        if stops:
            drawn = jnp.where(ended, end.astype(tokens.dtype), drawn)
            ended = ended | (drawn == end)
        here = _places(tokens) == (each + number)[..., None]
        return jnp.where(here, drawn[..., None], tokens), ended, drawn

    def solve_again(number, state):
        (tokens, ended), position = state, each + number
        start = jnp.clip(position - window, 0, size - window)[..., None]
        seen = start + _places(tokens[..., :window])
        seen = jnp.take_along_axis(tokens, seen, axis=-1)
        solution = model.solve(seen if encoded is None else SourceAndText(encoded, seen))
        last = (position[..., None] - start - 1)[..., None]
        logits = model.outputs(jnp.take_along_axis(solution.u1, last, axis=-2))[..., 0, :]
        solved = jnp.broadcast_to(solution.succeeded, logits.shape[:-1])[..., None]
        return put(tokens, ended, number, jnp.where(solved, logits, jnp.nan))[:2]

    first = jnp.zeros((), int)
    state: Any = tokens, jnp.zeros(batch, bool)
    if cached:
        decoder = CachedDecoder(model, window)
        extend = decoder.extend
        # Texts of different lengths have positions of their own.
        for _ in range(jnp.ndim(ends)):
            extend = jax.vmap(extend, in_axes=(0, 0, 1), out_axes=(0, 1))
        first = jnp.clip(context + 1 - longest, 0, length)

        def read(number, state):
            tokens, ended, drawn, cache = state
            logits, cache = extend(drawn, ends + number - 1, cache)
            return *put(tokens, ended, number, logits), cache

        def read_all(tokens, ended):
            logits, cache = decoder.prefill(tokens[..., :window], ends - 1)
            begun = *put(tokens, ended, 0, logits), cache
            return lax.fori_loop(1, first, read, begun)[:2]

        if size <= context + 1:
            return read_all(*state)[0]
        state = lax.cond(first > 0, read_all, lambda *state: state, *state)
    _, state = lax.while_loop(
        lambda x: (x[0] < length) & ~jnp.all(x[1][1]),
        lambda x: (x[0] + 1, solve_again(*x)),
        (first, state),
    )
    return state[0]


def _encoded(model: Model[EncodedInputs, TokenLogits], source: PyTree) -> Encoded:
    """The states of the encoder, NaN where its solve failed."""
    encoded, before = model.inputs.encoded(source)
    for solution in before:
        succeeded = solution.succeeded[..., None, None]
        encoded = encoded._replace(states=jnp.where(succeeded, encoded.states, jnp.nan))
    return encoded
