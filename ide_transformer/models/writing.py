"""Checks that the functions which write a text share."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..arguments import is_known
from ..errors import InputError
from .language_model import LanguageModel


# Stands in a text where there were no logits to take a token by.
NO_TOKEN = -1


def check_writer(name: str, model: LanguageModel) -> None:
    """Checks that the logits of a token do not depend on the tokens after it, which are not
    written yet.

    **Arguments:**

    - `name`: of the function that writes.

    **Raises:** `InputError` for an operator that integrates over them, and for an exit by the
    mean over them.
    """
    for operator in eqx.filter_eval_shape(model.control, 0.0):
        operator = operator.innermost
        kind = type(operator).__name__
        if operator.sees_all:
            raise InputError(
                f"{name}: {kind} sees all tokens, also those that are still to be written; "
                "take a model whose operators are causal."
            )
        if not getattr(operator, "causal", True):
            raise InputError(
                f"{name}: {kind} integrates over tokens that are still to be written; make it "
                f"causal, {kind}(…, causal=True)."
            )
    exit = model.discretization.exit
    if exit is not None and exit.stops == "sample":
        raise InputError(
            f"{name}: {type(exit).__name__}(…, stops='sample') stops by the mean over all "
            "tokens, also those that are still to be written; give stops='token', or solve to "
            "the end, model.with_exit(None)."
        )


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
