"""Reads texts token by token with a cache of keys and values."""

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
from .parts import AbstractInputs
from .read_outs import TokenLogits
from .text_inputs import TextInputs


@checked
class CachedDecoder(eqx.Module):
    """A causal language model that reads token by token, with a cache of keys and values:

        logits, cache = decoder.prefill(prompt)
        logits, cache = decoder.extend(token, position, cache)

    The logits equal the model's for the whole text. They are NaN after a failed step, and for
    positions outside the prompt or `tokens`. For a position of each text use `jax.vmap`.

    **Arguments:** `model`, solved by an explicit scheme with fixed steps, and `tokens`, the
    longest text, at most the context of the model.
    """

    model: Model[TextInputs, TokenLogits]
    march: TokenMarch

    def __init__(self, model: Model[TextInputs, TokenLogits], tokens: PositiveInt):
        reason = _why_inputs_not_cached(model.inputs)
        if reason is None and tokens > model.inputs.context:
            reason = f"{tokens=} must be at most the model's context, {model.inputs.context}."
        if reason is not None:
            raise InputError(f"Token by token: {reason}")
        model = model.ordinary
        self.model = model = model.with_inputs(replace(model.inputs, context=tokens))
        equation = Equation(model.rounded_control, model.constraint, model.domain)
        self.march = TokenMarch(equation, model.solver, model.mesh, _state(model), model.exit)

    @checked
    def prefill(
        self,
        prompt: Integer[Array | np.ndarray, "*batch prompt"],
        last: Integer[Array | np.ndarray, "*#batch"] | int = -1,
    ) -> tuple[Float[Array, "*batch vocabulary"], TokenCache]:
        """The logits of the token after position `last`, where the prompt ends, and the cache.
        Padding may follow `last`. If `last` is an array, one program serves all lengths."""
        length = prompt.shape[-1]
        last = jnp.where(jnp.asarray(last) < 0, length + jnp.asarray(last), last)
        num_read = jnp.clip(jnp.max(last) + 1, 0, length)
        u1, cache = self.march.prefill(self.model.inputs.embed(prompt).u0, num_read)
        position = jnp.broadcast_to(last, prompt.shape[:-1])[..., None]
        u1 = jnp.take_along_axis(u1, jnp.clip(position, 0, length - 1)[..., None], axis=-2)
        return self._logits(u1, (position >= 0) & (position < length)), cache

    @checked
    def extend(
        self,
        token: Integer[Array | np.ndarray, "*batch"] | int,
        position: Integer[Array | np.ndarray, ""] | int,
        cache: TokenCache,
    ) -> tuple[Float[Array, "*batch vocabulary"], TokenCache]:
        """The logits after `position`, and the new cache. `cache` holds all earlier tokens."""
        u0 = self.model.inputs.embed(jnp.asarray(token)[..., None], start=position).u0
        u1, cache = self.march.extend(u0, jnp.asarray(position), cache)
        return self._logits(u1, (position >= 0) & (position < self.march.num_tokens)), cache

    def _logits(self, u1: Array, inside: Any) -> Float[Array, "*batch vocabulary"]:
        logits = self.model.outputs(u1)[..., 0, :]
        return jnp.where(jnp.broadcast_to(inside, logits.shape), logits, jnp.nan)


@checked
@once_for_each
def why_not_cached(model: Model) -> str | None:
    """The reason why `generate` solves again for each token; `None` if it uses a
    `CachedDecoder`."""
    if (reason := _why_inputs_not_cached(model.inputs)) is not None:
        return reason
    model = model.ordinary
    return why_not_by_token(model.equation, model.solver, model.mesh, _state(model), model.exit)


def _why_inputs_not_cached(inputs: AbstractInputs) -> str | None:
    if type(inputs) is not TextInputs:
        return f"a cache needs TextInputs; these are {type(inputs).__name__}."
    if inputs.padding is not None:
        return "positions skip a padding token; build the inputs with padding=None."
    return None


def _state(model: Model[TextInputs, TokenLogits]) -> jax.ShapeDtypeStruct:
    return eqx.filter_eval_shape(model.inputs.embed, jnp.zeros(1, int)).u0
