import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from ..equation import Equation, TokenDomain
from ..errors import InputError
from ..integration import Memory, TokenMarch, why_not_by_token
from .language_model import LanguageModel


_ADAPTIVE = (
    "adaptive steps depend on the whole text; solve with fixed ones, "
    "model.with_solver(solver, steps_per_interval=…)."
)


class CachedDecoder(eqx.Module):
    """A causal language model that reads one token after the other: what its attention needs
    of the tokens read so far, keys and values at each evaluation of each step, is kept.

        logits, memory = decoder.begin(prompt)
        logits, memory = decoder.go_on(token, position, memory)

    The logits are those of `model` for the whole text. `jax.vmap` gives texts positions of
    their own.

    **Arguments:**

    - `model`: solved by an explicit scheme with fixed steps.
    - `tokens`: how many can be read in all; at most the context of the model.

    **Raises:** `InputError` if the model cannot be decoded so, with the reason that
    `why_not_cached` gives.
    """

    model: LanguageModel
    march: TokenMarch

    def __init__(self, model: LanguageModel, tokens: int):
        if not 1 <= tokens <= model.context:
            raise InputError(
                f"CachedDecoder(tokens={tokens}): the context of the model is {model.context}; "
                f"choose from 1 to {model.context} tokens."
            )
        if model.discretization.stepsize_controller is not None:
            raise InputError(f"CachedDecoder: {_ADAPTIVE}")
        self.model = model
        self.march = TokenMarch(
            Equation(model.control, model.constraint, TokenDomain.uniform(tokens)),
            solver=model.discretization.solver,
            steps_per_interval=model.discretization.steps_per_interval,
            state=_state(model),
        )

    def begin(
        self, prompt: Int[Array, "*batch prompt"], last: Int[Array, ""] | int = -1
    ) -> tuple[Float[Array, "*batch vocabulary"], Memory]:
        """The logits of the token after a prompt, and what is remembered of it.

        **Arguments:**

        - `last`: where the prompt ends, if there is padding after it.
        """
        room = self.march.equation.domain.num_tokens
        if not 1 <= prompt.shape[-1] <= room:
            raise InputError(
                f"CachedDecoder.begin: a prompt of {prompt.shape[-1]} tokens; the decoder was "
                f"built for 1 to {room}."
            )
        u1, memory = self.march.begin(self.model.embed_from(0, prompt))
        u1 = lax.dynamic_index_in_dim(u1, last, axis=-2)
        return self.model.read_out(u1)[..., 0, :], memory

    def go_on(
        self, token: Int[Array, "*batch"], position: Int[Array, ""] | int, memory: Memory
    ) -> tuple[Float[Array, "*batch vocabulary"], Memory]:
        """The logits of the token after this one, and what is then remembered.

        **Arguments:**

        - `token`: the one at `position`, which is below `tokens`; all before it have been
          read.
        """
        u0 = self.model.embed_from(position, token[..., None])
        u1, memory = self.march.go_on(u0, position, memory)
        return self.model.read_out(u1)[..., 0, :], memory


def why_not_cached(model: LanguageModel) -> str | None:
    """Why `generate` has to solve the equation of a model anew for each token, and what to
    write instead; `None` where it uses a `CachedDecoder`."""
    if model.discretization.stepsize_controller is not None:
        return _ADAPTIVE
    return why_not_by_token(model.equation, model.discretization.solver, _state(model))


def _state(model: LanguageModel) -> jax.ShapeDtypeStruct:
    return eqx.filter_eval_shape(model.embed_from, 0, jnp.zeros(1, int))
