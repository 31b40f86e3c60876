"""Sampling text from a language model."""

from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Integer, PRNGKeyArray

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
from .text import Text, as_text


# Stands in a text where there were no logits to take a token by.
NO_TOKEN = -1


class Draw(NamedTuple):
    """The options of drawing a token: see `generate`."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None


@runtime_checkable
class Tokens(Protocol):
    """Text to tokens and back, such as the tokenizers of `ide_transformer.tasks`."""

    def encode(self, text: str) -> np.ndarray: ...

    def decode(self, tokens: np.ndarray) -> str: ...


# Tokens `[..., prompt]`, a `Text`, or a string.
Prompt = TypeVar("Prompt", Integer[Array | np.ndarray, "..."], Text, str)


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
    the last `context` tokens. One compiled program: a pass over the prompt, then a loop.

        loaded = ide.load_model("runs/shakespeare")
        ide.generate(loaded.model, "To be", 100, temperature=0.0, tokenizer=loaded.tokenizer)

    The tokens read so far are kept in the cache of a `CachedDecoder`, unless
    `why_not_cached(model)` says why not. Then, and beyond the context, where all positions
    move with each token, the equation is solved again for each. The tokens are the same.

    **Arguments:**

    - `prompt`: at least one token; a string; or a `Text` for prompts of different lengths,
      its mask `False` at the padding behind each.
    - `key`: draws the tokens, for example `jax.random.key(0)`; none at temperature 0.
    - `temperature`: divides the logits; 0 takes the most likely token.
    - `top_k`: draw from the k most likely tokens only.
    - `top_p`: draw from the most likely tokens only, as few as have this probability
      together (Holtzman et al., arXiv 1904.09751).
    - `tokenizer`: the one that belongs to the model, where the prompt is a string.

    **Returns:** `[..., prompt + length]`: each prompt and, right behind its last token, what
    was drawn. For a `Text` it is one, whose mask says where each ends; for a string, a string.

    **Raises:** `InputError` for an empty prompt, padding before a token, bad options, a model
    that sees tokens still to be written, and where a solve fails or logits are not finite.
    Inside a compiled function such a token is -1, and so are all of a prompt with padding
    before a token.
    """
    options = Draw(temperature, top_k, top_p)
    if length >= 2**31:
        raise InputError(f"generate: length={length}: tokens are counted in int32; give fewer.")
    if key is None and temperature > 0:
        raise InputError(
            f"generate: temperature={temperature} draws at random; give key=jax.random.key(0), "
            "or temperature=0 for the most likely tokens."
        )
    if isinstance(prompt, str):
        if tokenizer is None:
            raise InputError(
                "generate: the prompt is a string; give tokenizer=load_model(path).tokenizer."
            )
        encoded = jnp.asarray(tokenizer.encode(prompt), int)
        drawn = generate(model, encoded, length, key=key, **options._asdict())
        written: Any = tokenizer.decode(np.asarray(drawn))
        return written
    check_causal("generate", model)
    text = as_text(prompt)
    if text.tokens.shape[-1:] == (0,):
        raise InputError("generate: the prompt is empty; give it at least one token.")
    text.check(vocabulary=model.inputs.vocabulary, context=np.size(text.tokens))
    tokens = jnp.asarray(text.tokens, int)
    ends, behind = (tokens.shape[-1], None) if text.mask is None else _ends(text.mask)
    # `Any`, since a checker does not see that the kind of the prompt decides.
    tokens: Any = _generate(model, tokens, ends, length, key, options)
    check_written("generate", tokens)
    if behind is None:
        return tokens
    tokens = jnp.where(behind[..., None], tokens, NO_TOKEN)
    drawn: Any = Text(tokens, _places(tokens) < (ends + length)[..., None])
    return drawn


def _ends(
    mask: Array | np.ndarray,
) -> tuple[Int[Array, "*batch"], Bool[Array | np.ndarray, "*batch"]]:
    """The number of tokens of each prompt, and whether its padding is behind them."""
    mask = np.asarray(mask, bool) if is_known(mask) else mask.astype(bool)
    behind = mask[..., 0] & (mask[..., 1:] <= mask[..., :-1]).all(axis=-1)
    if is_known(behind) and not behind.all():
        raise InputError(
            "generate: the mask of the prompt is False before a token; each prompt has at "
            "least one token, and its padding stands behind it."
        )
    return jnp.sum(jnp.asarray(mask, int), axis=-1), behind


def _places(tokens: Int[Array, "*batch total"]) -> Int[Array, "*batch total"]:
    return jnp.broadcast_to(jnp.arange(tokens.shape[-1]), tokens.shape)


@eqx.filter_jit
def _generate(
    model: Model,
    prompt: Int[Array, "*batch prompt"],
    ends: Int[Array, "*batch"] | int,
    length: int,
    key: PRNGKeyArray | None,
    options: Draw,
) -> Int[Array, "*batch total"]:
    key = jax.random.key(0) if key is None else key  # at temperature 0 it draws nothing
    # The last of these tokens is drawn where the context is full.
    cached_tokens = min(length, max(model.inputs.context + 1 - prompt.shape[-1], 0))
    if why_not_cached(model) is not None:
        cached_tokens = 0
    return write(model, prompt, ends, length, key, options, cached_tokens=cached_tokens)


def write(
    model: Model,
    prompt: Int[Array, "*batch prompt"],
    ends: Int[Array, "*batch"] | int,
    length: int,
    key: PRNGKeyArray,
    options: Draw,
    *,
    cached_tokens: int,
) -> Int[Array, "*batch total"]:
    """The program of `generate`.

    **Arguments:**

    - `ends`: the length of each prompt, or of all.
    - `cached_tokens`: how many tokens are drawn with a `CachedDecoder`. For each of the
      others, the equation is solved again.
    """
    longest, total = prompt.shape[-1], prompt.shape[-1] + length
    tokens = jnp.zeros((*prompt.shape[:-1], total), prompt.dtype)
    tokens = lax.dynamic_update_slice_in_dim(tokens, prompt, 0, axis=-1)
    each = jnp.broadcast_to(ends, prompt.shape[:-1])
    tokens = jnp.where(_places(tokens) < each[..., None], tokens, 0)

    def put(tokens, number, logits):
        """The text with its token `number` drawn, and that token."""
        if logits.shape[-1] != model.inputs.vocabulary:
            raise InputError(
                f"generate: the read-out gives {logits.shape[-1]} numbers for a token, and the "
                f"inputs know {model.inputs.vocabulary} tokens; give a model whose read-out is "
                "TokenLogits."
            )
        drawn = draw(logits, jax.random.fold_in(key, longest + number), *options)
        drawn = jnp.where(usable(logits), drawn, NO_TOKEN).astype(tokens.dtype)
        here = _places(tokens) == (each + number)[..., None]
        return jnp.where(here, drawn[..., None], tokens), drawn

    def without_cache(number, tokens):
        return put(tokens, number, _logits_without_cache(model, tokens, each + number))[0]

    if cached_tokens:
        decoder = CachedDecoder(model, longest + cached_tokens - 1)
        prefill, extend = decoder.prefill, decoder.extend
        # Texts of different lengths have positions of their own.
        for _ in range(jnp.ndim(ends)):
            prefill, extend = jax.vmap(prefill), jax.vmap(extend)
        logits, cache = prefill(prompt, ends - 1)

        def read(number, state):
            tokens, drawn, cache = state
            logits, cache = extend(drawn, ends + number - 1, cache)
            return *put(tokens, number, logits), cache

        state = (*put(tokens, 0, logits), cache)
        tokens, *_ = lax.fori_loop(1, cached_tokens, read, state)
    if cached_tokens == length:
        return tokens
    return lax.fori_loop(cached_tokens, length, without_cache, tokens)


def _logits_without_cache(
    model: Model, tokens: Int[Array, "*batch total"], position: Int[Array, "*batch"]
) -> Float[Array, "*batch vocabulary"]:
    """The logits of the tokens at these positions, given the last ones before them."""
    total = tokens.shape[-1]
    window = min(model.inputs.context, total)
    # Until the context is full the window holds tokens not drawn yet, which a causal model
    # does not see.
    start = jnp.clip(position - window, 0, total - window)[..., None]
    places = start + _places(tokens[..., :window])
    solution = model.solve(jnp.take_along_axis(tokens, places, axis=-1))
    last = (position[..., None] - start - 1)[..., None]
    u1 = jnp.take_along_axis(solution.u1, last, axis=-2)
    return where_solved(model.outputs(u1)[..., 0, :], solution.succeeded)


def draw(
    logits: Float[Array, "*batch vocabulary"],
    key: PRNGKeyArray,
    temperature: float,
    top_k: int | None,
    top_p: float | None = None,
) -> Int[Array, "*batch"]:
    """One token from `softmax(logits / temperature)`, or the most likely at temperature 0."""
    if temperature == 0:
        return jnp.argmax(logits, axis=-1)
    if top_k is not None and top_k < logits.shape[-1]:
        smallest = lax.top_k(logits, top_k)[0][..., -1:]
        logits = jnp.where(logits < smallest, -jnp.inf, logits)
    # The largest becomes 0, so that the others cannot overflow to +inf.
    logits = logits - jnp.max(logits, axis=-1, keepdims=True)
    logits = logits / max(temperature, float(jnp.finfo(logits.dtype).tiny))
    if top_p is not None:
        descending = jnp.sort(logits, axis=-1, descending=True)
        probabilities = jax.nn.softmax(descending, axis=-1)
        before = jnp.cumsum(probabilities, axis=-1) - probabilities
        smallest = jnp.min(jnp.where(before < top_p, descending, jnp.inf), -1, keepdims=True)
        logits = jnp.where(logits < smallest, -jnp.inf, logits)
    return jax.random.categorical(key, logits, axis=-1)


def where_solved(
    logits: Float[Array, "*batch vocabulary"], succeeded: Bool[Array, "*samples"]
) -> Float[Array, "*batch vocabulary"]:
    """The logits, or NaN where the solve that they were read from failed."""
    each = jnp.broadcast_to(succeeded, logits.shape[:-1])
    return jnp.where(each[..., None], logits, jnp.nan)


def usable(logits: Float[Array, "*batch vocabulary"]) -> Bool[Array, "*batch"]:
    """Whether a token can be taken by them: none is NaN or infinite, but for `-inf`, which
    excludes a token."""
    return jnp.isfinite(jnp.max(logits, axis=-1))


def check_written(name: str, tokens: Int[Array, "*batch total"]) -> None:
    """Checks that each token was written. Traced tokens are not checked.

    **Arguments:**

    - `name`: of the function that wrote them.

    **Raises:** `InputError` where one is `NO_TOKEN`.
    """
    if not is_known(tokens):
        return
    texts = np.asarray(tokens).reshape(-1, tokens.shape[-1])
    missing = (texts == NO_TOKEN).any(axis=0)
    if missing.any():
        raise InputError(
            f"{name}: the token at position {missing.argmax()} could not be written, since its "
            "logits are not finite or its solve failed; the result of "
            "model.solve(…) says why. Look for weights that are not finite, or take more steps."
        )
