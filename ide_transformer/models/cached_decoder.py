from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from ..arguments import PositiveInt, checked
from ..equation import Equation
from ..errors import InputError
from ..integration import TokenCache, TokenMarch, why_not_by_token
from .model import Model, once_for_each
from .read_outs import TokenLogits
from .text_inputs import TextInputs


@checked
class CachedDecoder(eqx.Module):
    """A causal language model that reads one token after the other. A cache keeps the keys and
    values of the tokens read so far, at each evaluation of each step.

        logits, cache = decoder.prefill(prompt)
        logits, cache = decoder.extend(token, position, cache)

    They are the logits of `model` for the whole text; NaN after a step that failed, and at
    positions that are not in the prompt, or not below `tokens`. `jax.vmap` gives texts
    positions of their own.

    **Arguments:**

    - `model`: solved by an explicit scheme with fixed steps.
    - `tokens`: how many can be read in all; at most the context of the model.
    """

    model: Model[TextInputs, TokenLogits]
    march: TokenMarch

    def __init__(self, model: Model[TextInputs, TokenLogits], tokens: PositiveInt):
        context = model.inputs.context
        if tokens > context:
            raise InputError(
                f"CachedDecoder(tokens={tokens}): the context of the model is {context}; "
                f"choose from 1 to {context} tokens."
            )
        reason = _why_no_cache_of(model)
        if reason is not None:
            raise InputError(f"Token by token: {reason}")
        model = model.ordinary
        self.model = model = model.with_inputs(replace(model.inputs, context=tokens))
        equation = Equation(model.rounded_control, model.constraint, model.domain)
        self.march = TokenMarch(equation, model.mesh, _state(model), model.exit)

    @checked
    def prefill(
        self,
        prompt: Integer[Array | np.ndarray, "*batch prompt"],
        last: Integer[Array | np.ndarray, "*#batch"] | int = -1,
    ) -> tuple[Float[Array, "*batch vocabulary"], TokenCache]:
        """The logits of the token after a prompt that ends at `last`, padding behind it, and
        the cache of the prompt. One program for all lengths, where `last` is an array."""
        number = prompt.shape[-1]
        last = jnp.where(jnp.asarray(last) < 0, number + jnp.asarray(last), last)
        read = jnp.clip(jnp.max(last) + 1, 0, number)
        u1, cache = self.march.prefill(self.model.inputs.embed(prompt).u0, read)
        place = jnp.broadcast_to(last, prompt.shape[:-1])[..., None]
        u1 = jnp.take_along_axis(u1, jnp.clip(place, 0, number - 1)[..., None], axis=-2)
        return self._logits(u1, (place >= 0) & (place < number)), cache

    @checked
    def extend(
        self,
        token: Integer[Array | np.ndarray, "*batch"] | int,
        position: Integer[Array | np.ndarray, ""] | int,
        cache: TokenCache,
    ) -> tuple[Float[Array, "*batch vocabulary"], TokenCache]:
        """The logits of the token after the one at `position`, and the cache with it; all
        before it have been read."""
        u0 = self.model.inputs.embed(jnp.asarray(token)[..., None], start=position).u0
        u1, cache = self.march.extend(u0, jnp.asarray(position), cache)
        return self._logits(u1, (position >= 0) & (position < self.march.num_tokens)), cache

    def _logits(self, u1: Array, inside: Any) -> Float[Array, "*batch vocabulary"]:
        logits = self.model.outputs(u1)[..., 0, :]
        return jnp.where(jnp.broadcast_to(inside, logits.shape), logits, jnp.nan)


@checked
@once_for_each
def why_not_cached(model: Model) -> str | None:
    """Why `generate` uses no cache: the reason why it solves the equation of a model again for
    each token, and what to write instead. `None` if it uses a `CachedDecoder`."""
    reason = _why_no_cache_of(model)
    if reason is not None:
        return reason
    model = model.ordinary
    return why_not_by_token(model.equation, model.mesh, _state(model), model.exit)


def _why_no_cache_of(model: Model) -> str | None:
    """Why the embedding of a token depends on more than the token and its place."""
    inputs = model.inputs
    if type(inputs) is not TextInputs:
        return f"a cache knows TextInputs, and these are {type(inputs).__name__}."
    if inputs.padding is not None:
        return "places are counted without a padding token; build the inputs with padding=None."
    return None


def _state(model: Model[TextInputs, TokenLogits]) -> jax.ShapeDtypeStruct:
    return eqx.filter_eval_shape(model.inputs.embed, jnp.zeros(1, int)).u0
