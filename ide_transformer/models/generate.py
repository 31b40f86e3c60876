"""Sampling text from a language model."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..errors import InputError
from .language_model import LanguageModel
from .text import as_text


def generate(
    model: LanguageModel,
    prompt: Int[Array, "*batch prompt"],
    length: int,
    *,
    key: PRNGKeyArray,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Int[Array, "*batch total"]:
    """Draws `length` tokens after `prompt`, each from the distribution of the model given
    the last `context` tokens. One compiled loop; the equation is solved anew for each token.

    **Arguments:**

    - `prompt`: at least one token.
    - `temperature`: divides the logits; 0 takes the most likely token.
    - `top_k`: draw from the k most likely tokens only.
    - `top_p`: draw from the most likely tokens only, as few as have this probability
      together (Holtzman et al., arXiv 1904.09751).

    **Raises:** `InputError` for an empty prompt or options out of range.
    """
    if prompt.shape[-1] == 0:
        raise InputError("generate: the prompt is empty; give it at least one token.")
    if temperature < 0:
        raise InputError(f"generate: temperature={temperature}; it must not be negative.")
    if top_k is not None and top_k < 1:
        raise InputError(f"generate: top_k={top_k}; it must be at least 1.")
    if top_p is not None and not 0 < top_p <= 1:
        raise InputError(f"generate: top_p={top_p}; it must be above 0 and at most 1.")
    as_text(prompt).check(vocabulary=model.embedding.shape[0], context=prompt.shape[-1])
    return _generate(model, prompt, length, key, temperature, top_k, top_p)


@eqx.filter_jit
def _generate(
    model: LanguageModel,
    prompt: Int[Array, "*batch prompt"],
    length: int,
    key: PRNGKeyArray,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
) -> Int[Array, "*batch total"]:
    total = prompt.shape[-1] + length
    tokens = jnp.zeros((*prompt.shape[:-1], total), prompt.dtype)
    tokens = lax.dynamic_update_slice_in_dim(tokens, prompt, 0, axis=-1)
    window = min(model.context, total)

    def step(position, tokens):
        # Until the context is full the window holds tokens not drawn yet, which a causal
        # model does not see.
        start = jnp.clip(position - window, 0, total - window)
        visible = lax.dynamic_slice_in_dim(tokens, start, window, axis=-1)
        logits = model(visible)
        last = lax.dynamic_index_in_dim(logits, position - start - 1, axis=-2, keepdims=False)
        drawn = draw(last, jax.random.fold_in(key, position), temperature, top_k, top_p)
        return lax.dynamic_update_slice_in_dim(
            tokens, drawn[..., None].astype(tokens.dtype), position, axis=-1
        )

    return lax.fori_loop(prompt.shape[-1], total, step, tokens)


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
    logits = logits / temperature
    if top_p is not None:
        descending = jnp.sort(logits, axis=-1, descending=True)
        probabilities = jax.nn.softmax(descending, axis=-1)
        before = jnp.cumsum(probabilities, axis=-1) - probabilities
        smallest = jnp.min(jnp.where(before < top_p, descending, jnp.inf), -1, keepdims=True)
        logits = jnp.where(logits < smallest, -jnp.inf, logits)
    return jax.random.categorical(key, logits, axis=-1)
