"""Checks that the functions which write a text share."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..arguments import is_known
from ..errors import InputError


# Stands in a text where there were no logits to take a token by.
NO_TOKEN = -1


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
