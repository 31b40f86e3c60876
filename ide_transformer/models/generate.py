"""Generates texts token by token."""

import math
from typing import Any, NamedTuple, Protocol, TypeVar, cast, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Integer, PRNGKeyArray

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
from .model import Model
from .parts import Text
from .text_inputs import as_text, check_text


# In place of a token that could not be drawn.
NO_TOKEN = -1
# The most tokens of one call, prompts included.
_MOST_TOKENS = 2**24


@runtime_checkable
class Tokens(Protocol):
    """A tokenizer, such as `PretrainedTokenizer` of `ide_transformer.tasks`."""

    def encode(self, text: str) -> np.ndarray: ...

    def decode(self, tokens: np.ndarray) -> str: ...


# Tokens `[..., prompt]`, a `Text`, a string, or a list of strings.
Prompt = TypeVar("Prompt", Integer[Array | np.ndarray, "..."], Text, str, list[str])


class Draw(NamedTuple):
    """Draws tokens from logits; for the fields see `generate`."""

    temperature: float | np.ndarray = 1.0
    top_k: int | None = None
    top_p: float | np.ndarray | None = None

    def __call__(
        self, logits: Float[Array, "*batch vocabulary"], key: PRNGKeyArray
    ) -> Int[Array, "*batch"]:
        if is_known(self.temperature) and self.temperature == 0:
            return jnp.argmax(logits, axis=-1)
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            smallest = lax.top_k(logits, self.top_k)[0][..., -1:]
            logits = jnp.where(logits < smallest, -jnp.inf, logits)
        # The largest logit becomes 0, so that no other overflows to +inf.
        logits = logits - jnp.max(logits, axis=-1, keepdims=True)
        temperature = jnp.asarray(self.temperature, logits.dtype)
        logits = logits / jnp.maximum(temperature, jnp.finfo(logits.dtype).tiny)
        if self.top_p is not None:
            descending = jnp.sort(logits, axis=-1, descending=True)
            probabilities = jax.nn.softmax(descending, axis=-1)
            before = jnp.cumsum(probabilities, axis=-1) - probabilities
            top_p = jnp.asarray(self.top_p, before.dtype)
            nucleus = jnp.where(before < top_p, descending, jnp.inf)
            smallest = jnp.min(nucleus, -1, keepdims=True)
            logits = jnp.where(logits < smallest, -jnp.inf, logits)
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
    end: NonNegativeInt | None = None,
    tokenizer: Tokens | None = None,
) -> Prompt:
    """Draw `length` tokens after `prompt`, each from the last `context` tokens before it.

        loaded = ide.load_model("runs/shakespeare")
        ide.generate(loaded.model, "To be", 100, temperature=0.0, tokenizer=loaded.tokenizer)

    One compiled program serves prompts and lengths up to 256 tokens in all, another one up to
    1024, and so on. It uses a `CachedDecoder`. Beyond the context, and if `why_not_cached` has
    a reason, it solves the equation again for each token, with equal results.

    **Arguments:**

    - `prompt`: at least one token; or strings; or a `Text` for prompts of different lengths,
      whose mask is `False` at the padding after each.
    - `key`: draws the tokens; needed at a temperature above 0.
    - `temperature`: divides the logits; 0 chooses the most likely token.
    - `top_k`: draw only from the k most likely tokens.
    - `top_p`: draw only from the most likely tokens of this probability (arXiv 1904.09751).
    - `end`: the token that ends a text and fills the rest. Strings end before it.
    - `tokenizer`: the model's, for strings.

    **Returns:** `[..., prompt + length]`: each prompt, followed by the drawn tokens. For a
    `Text`, a `Text` whose mask marks where each text ends; for strings, strings.

    **Raises:** `InputError` for an empty prompt, padding before a token, more than 16,777,216
    tokens in all, a model that sees later tokens, a failed solve, and infinite logits.
    """
    if key is None and temperature > 0:
        raise InputError(f"generate: {temperature=} needs key=jax.random.key(0); or pass 0.")
    if isinstance(prompt, str | list):
        if tokenizer is None:
            raise InputError("generate: prompt is a string; pass tokenizer=….")
        texts = prompt if isinstance(prompt, list) else [prompt]
        for text in texts:
            # A terminal passes invalid bytes as surrogates.
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise InputError(f"generate: prompt={text!a} must be valid UTF-8.")
        encoded = [tokenizer.encode(text) for text in texts]
        if not all(map(len, encoded)):
            raise InputError("generate: a prompt is empty; pass at least one character.")
        lengths = np.array([len(x) for x in encoded], int)
        mask = np.arange(lengths.max(initial=0)) < lengths[:, None]
        tokens = np.zeros(mask.shape, int)
        tokens[mask] = np.concatenate([np.zeros(0, int), *encoded])
        prompts = cast(Any, tokens if len(texts) == 1 else Text(tokens, mask))
        options: dict[str, Any] = dict(temperature=temperature, top_k=top_k, top_p=top_p)
        options |= dict(key=key, end=end)
        generated = as_text(generate(model, prompts, length, **options))
        strings = []
        for row, start in zip(np.asarray(generated.tokens), lengths, strict=True):
            new = row[start : start + length]
            if end is not None:
                new = new[: len(new) - np.cumsum(new == end).astype(bool).sum()]
            strings.append(tokenizer.decode(np.append(row[:start], new)))
        return cast(Prompt, strings if isinstance(prompt, list) else strings[0])
    check_causal("generate", model)
    if end is not None and end >= model.inputs.vocabulary:
        raise InputError(f"generate: {end=} must be below {model.inputs.vocabulary}.")
    text = check_text(prompt, model.inputs.vocabulary, context=2**31)
    # NumPy, since it compiles nothing.
    tokens = np.asarray(text.tokens, int)
    ends = np.asarray(tokens.shape[-1])
    if text.mask is not None:
        mask = np.asarray(text.mask, bool)
        ends = mask.sum(axis=-1)
        if not mask[..., 0].all() or (mask[..., 1:] > mask[..., :-1]).any():
            raise InputError(
                "generate: mask is False before a token; pad prompts at their end."
            )
    total = math.prod(tokens.shape[:-1]) * (tokens.shape[-1] + length)
    if total > _MOST_TOKENS:
        raise InputError(
            f"generate: got {total:,} tokens in all, which must be at most {_MOST_TOKENS:,}."
        )
    draw = Draw(temperature, top_k, top_p)
    tokens = _generate_tokens(model, tokens, ends, length, draw, key, end)
    missing = tokens == NO_TOKEN
    if missing.any():
        position = missing.reshape(-1, tokens.shape[-1]).any(axis=0).argmax()
        raise InputError(f"generate: position {position} has no token: logits are not finite.")
    if text.mask is None:
        return cast(Prompt, jax.device_put(tokens))
    mask = np.arange(tokens.shape[-1]) < (ends + length)[..., None]
    return cast(Prompt, jax.device_put(Text(np.where(mask, tokens, 0), mask)))


def _generate_tokens(
    model: Model,
    prompt: Int[np.ndarray, "*batch prompt"],
    ends: Int[np.ndarray, "*#batch"],
    length: int,
    draw: Draw,
    key: PRNGKeyArray | None,
    end: int | None,
) -> Int[np.ndarray, "*batch total"]:
    """Prompts of lengths `ends`, each followed by `length` tokens. Buffers have few sizes, so
    few programs are compiled."""
    if not length:
        return prompt
    longest = prompt.shape[-1]
    context = model.inputs.context
    total = longest + length
    cached = why_not_cached(model) is None
    # The last token can be drawn when the context is full.
    most = context + 1
    if total > most:
        size = _buffer_size(total, context, 4)
    else:
        # Without a cache each token costs a solve for the whole size.
        size = min(_buffer_size(total, 256, 4) if cached else _buffer_size(total, 16, 2), most)
    room = [(0, 0)] * (prompt.ndim - 1) + [(0, size - longest)]
    tokens = np.pad(prompt, room)
    # Arrays, so that no other program is compiled for other numbers.
    top_p = None if draw.top_p is None else np.asarray(draw.top_p, float)
    temperature = draw.temperature and np.asarray(draw.temperature, float)
    buffers = _fill_buffers(
        model,
        tokens,
        ends,
        np.asarray(longest),
        np.asarray(length),
        np.asarray(NO_TOKEN if end is None else end),
        draw._replace(temperature=temperature, top_p=top_p),
        key,
        end is not None,
        cached,
    )
    return np.asarray(buffers)[..., :total]


def _buffer_size(tokens: int, first: int, factor: int) -> int:
    """The smallest of `first`, `first * factor`, … that is at least `tokens`."""
    while first < tokens:
        first *= factor
    return first


@eqx.filter_jit
def _fill_buffers(model, tokens, ends, longest, length, end, draw, key, stops, cached):
    """Draw `length` tokens after each prompt; `longest` is the longest prompt."""
    key = jax.random.key(0) if key is None else key  # unused at temperature 0
    context = model.inputs.context
    *batch, size = tokens.shape
    window = min(context, size)
    prompt_ends = jnp.broadcast_to(ends, batch)
    positions = jnp.broadcast_to(jnp.arange(size), tokens.shape)
    # A causal model does not see what follows a text, but it must be a token.
    filler = end.astype(tokens.dtype) if stops else tokens[..., :1]
    tokens = jnp.where(positions < prompt_ends[..., None], tokens, filler)

    def draw_token(tokens, ended, index, logits):
        """The buffer with new token `index`, whether the text has ended, and the token."""
        if logits.shape[-1] != model.inputs.vocabulary:
            raise InputError("generate: pass a model whose read-out is TokenLogits.")
        drawn = draw(logits, jax.random.fold_in(key, longest + index))
        # A logit of -inf excludes a token; NaN and +inf are failures.
        usable = jnp.isfinite(jnp.max(logits, axis=-1))
        drawn = jnp.where(usable, drawn, NO_TOKEN).astype(tokens.dtype)
        if stops:
            drawn = jnp.where(ended, end.astype(tokens.dtype), drawn)
            ended = ended | (drawn == end)
        is_new = positions == (prompt_ends + index)[..., None]
        return jnp.where(is_new, drawn[..., None], tokens), ended, drawn

    def solve_again(index, state):
        tokens, ended = state
        position = prompt_ends + index
        start = jnp.clip(position - window, 0, size - window)[..., None]
        in_window = start + jnp.broadcast_to(jnp.arange(window), (*batch, window))
        text = Text(jnp.take_along_axis(tokens, in_window, axis=-1))
        solution = model.solve(model.inputs.of_text(text))
        last = (position[..., None] - start - 1)[..., None]
        logits = model.outputs(jnp.take_along_axis(solution.u1, last, axis=-2))[..., 0, :]
        solved = jnp.broadcast_to(solution.succeeded, logits.shape[:-1])[..., None]
        return draw_token(tokens, ended, index, jnp.where(solved, logits, jnp.nan))[:2]

    first = jnp.zeros((), int)
    state = tokens, jnp.zeros(batch, bool)
    if cached:
        decoder = CachedDecoder(model, window)
        extend = decoder.extend
        # Texts of different lengths have different positions.
        for _ in range(jnp.ndim(ends)):
            extend = jax.vmap(extend, in_axes=(0, 0, 1), out_axes=(0, 1))
        first = jnp.clip(context + 1 - longest, 0, length)

        def step(state):
            index, tokens, ended, drawn, cache = state
            logits, cache = extend(drawn, ends + index - 1, cache)
            return index + 1, *draw_token(tokens, ended, index, logits), cache

        def decode(tokens, ended):
            logits, cache = decoder.prefill(tokens[..., :window], ends - 1)
            start = jnp.ones((), int), *draw_token(tokens, ended, 0, logits), cache
            return lax.while_loop(lambda x: (x[0] < first) & ~jnp.all(x[2]), step, start)[1:3]

        if size <= context + 1:
            return decode(*state)[0]
        state = lax.cond(first > 0, decode, lambda *state: state, *state)
    _, state = lax.while_loop(
        lambda x: (x[0] < length) & ~jnp.all(x[1][1]),
        lambda x: (x[0] + 1, solve_again(*x)),
        (first, state),
    )
    return state[0]
