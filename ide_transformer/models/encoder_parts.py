"""Parts of the encoders: the type of their constraint, learned tokens, their pooler."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..equation import AbstractConstraint, AbstractControl, Linear
from ..errors import InputError


def any_constraint(constraint: AbstractConstraint | AbstractControl) -> AbstractControl:
    """The type of a field that takes either, and that `as_control` then makes a control."""
    given: Any = constraint
    return given


def after_prefix(
    prefix: tuple[Float[Array, " features"], ...], u: Float[Array, "*batch tokens features"]
) -> Float[Array, "*batch all features"]:
    """A state after learned tokens."""
    first = [jnp.broadcast_to(token, (*u.shape[:-2], 1, len(token))) for token in prefix]
    return jnp.concatenate([*first, u], axis=-2)


def pool_first(
    pooler: Linear | None, states: Float[Array, "*batch tokens features"], *, missing: str
) -> Float[Array, "*batch pooled"]:
    """`tanh(W u_0 + b)`, u_0 the state of the first token.

    **Arguments:**

    - `missing`: the error for a model without a pooler.

    **Raises:** `InputError` for a model without a pooler.
    """
    if pooler is None:
        raise InputError(missing)
    return jnp.tanh(pooler(states[..., 0, :]))
