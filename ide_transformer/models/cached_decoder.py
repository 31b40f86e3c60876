import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Integer

from ..arguments import PositiveInt, checked, is_known
from ..equation import Equation, TokenDomain
from ..errors import InputError
from ..integration import TokenCache, TokenMarch, why_not_by_token
from .model import Model
from .read_outs import TokenLogits
from .text import as_text
from .text_inputs import TextInputs


class CachedDecoder(eqx.Module):
    """A causal language model that reads one token after the other. A cache keeps the keys and
    values of the tokens read so far, at each evaluation of each step.

        logits, cache = decoder.prefill(prompt)
        logits, cache = decoder.extend(token, position, cache)

    The logits are those of `model` for the whole text, or NaN after a step that failed.
    `jax.vmap` gives texts positions of their own.

    **Arguments:**

    - `model`: solved by an explicit scheme with fixed steps.
    - `tokens`: how many can be read in all; at most the context of the model.

    **Raises:** `InputError` if the model cannot be decoded so, with the reason that
    `why_not_cached` gives.
    """

    model: Model[TextInputs, TokenLogits]
    march: TokenMarch

    def __init__(self, model: Model[TextInputs, TokenLogits], tokens: PositiveInt):
        if tokens > (context := model.inputs.context):
            raise InputError(
                f"CachedDecoder(tokens={tokens}): the context of the model is {context}; "
                f"choose from 1 to {context} tokens."
            )
        if (reason := _why_no_cache_of(model)) is not None:
            raise InputError(f"Token by token: {reason}")
        self.model = model = model.ordinary
        control = model.rounded_control
        equation = Equation(control, model.constraint, TokenDomain.uniform(tokens))
        self.march = TokenMarch(equation, model.discretization, _state(model))

    @checked
    def prefill(
        self,
        prompt: Integer[Array | np.ndarray, "*batch prompt"],
        last: Integer[Array | np.ndarray, ""] | int = -1,
    ) -> tuple[Float[Array, "*batch vocabulary"], TokenCache]:
        """The logits of the token after a prompt, and the cache of the prompt.

        **Arguments:**

        - `last`: where the prompt ends, if there is padding after it.

        **Raises:** `InputError` for a prompt that is too long, tokens that the model does not
        know, and an end that is not in the prompt.
        """
        room = self.march.num_tokens
        if not 1 <= prompt.shape[-1] <= room:
            raise InputError(
                f"CachedDecoder.prefill: a prompt of {prompt.shape[-1]} tokens; the decoder "
                f"was built for 1 to {room}."
            )
        self._check_tokens(prompt)
        size = prompt.shape[-1]
        # Traced numbers cannot be refused; their logits are not a number.
        inside = (-size <= last) & (last < size)
        if is_known(inside) and not inside:
            raise InputError(
                f"CachedDecoder.prefill: last={last}: the prompt has {size} tokens; give a "
                f"position from 0 to {size - 1}, or -1 for the last one."
            )
        u1, cache = self.march.prefill(self.model.inputs.embed_from(0, prompt))
        u1 = lax.dynamic_index_in_dim(u1, last, axis=-2)
        return jnp.where(inside, self.model.outputs(u1)[..., 0, :], jnp.nan), cache

    @checked
    def extend(
        self,
        token: Integer[Array | np.ndarray, "*batch"] | int,
        position: Integer[Array | np.ndarray, ""] | int,
        cache: TokenCache,
    ) -> tuple[Float[Array, "*batch vocabulary"], TokenCache]:
        """The logits of the token after this one, and the cache with this one.

        **Arguments:**

        - `token`: the one at `position`, which is below `tokens`; all before it have been
          read.

        **Raises:** `InputError` for a position or a token that is out of range.
        """
        room = self.march.num_tokens
        inside = (position >= 0) & (position < room)
        if is_known(inside) and not inside:
            raise InputError(
                f"CachedDecoder.extend: position={position}: the decoder was built for {room} "
                f"tokens, at the positions 0 to {room - 1}; build it for more."
            )
        token = jnp.asarray(token)[..., None]
        self._check_tokens(token)
        u0 = self.model.inputs.embed_from(position, token)
        u1, cache = self.march.extend(u0, jnp.asarray(position), cache)
        return jnp.where(inside, self.model.outputs(u1)[..., 0, :], jnp.nan), cache

    def _check_tokens(self, tokens: Integer[Array | np.ndarray, "*batch tokens"]) -> None:
        vocabulary = self.model.inputs.vocabulary
        as_text(tokens).check(vocabulary=vocabulary, context=self.march.num_tokens)


@checked
def why_not_cached(model: Model) -> str | None:
    """The reason why `generate` solves the equation of a model again for each token, and what
    to write instead; `None` where it uses a `CachedDecoder`."""
    reason = _why_no_cache_of(model)
    if reason is not None:
        return reason
    model = model.ordinary
    return why_not_by_token(model.equation, model.discretization, _state(model))


def _why_no_cache_of(model: Model) -> str | None:
    """The reason why the embedding of a token is not that of the token and its place."""
    inputs = model.inputs
    if type(inputs) is not TextInputs:
        return f"a cache knows TextInputs, and these are {type(inputs).__name__}."
    if inputs.padding is not None:
        return "places are counted without a padding token; build the inputs with padding=None."
    if inputs.velocity is not None:
        return (
            "the velocity starts from an embedding of its own, which a cache does not know; "
            "build the model with own_velocity=False."
        )
    return None


def _state(model: Model[TextInputs, TokenLogits]) -> jax.ShapeDtypeStruct:
    return eqx.filter_eval_shape(model.inputs.embed_from, 0, jnp.zeros(1, int))
