"""Texts, and the tables of their embeddings."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Integer

from ..arguments import check_fields, is_known
from ..equation import TokenDomain
from ..errors import InputError


class Text(NamedTuple):
    """Tokens, with their mask and their segments.

    - `tokens`: `[..., tokens]`, integers.
    - `mask`: `[..., tokens]`, `False` or 0 at padding; `None` where there is none.
    - `segments`: `[..., tokens]`, which of two sentences a token belongs to, for models that
      distinguish them; `None` for the first.
    """

    tokens: Integer[Array | np.ndarray, "*batch tokens"]
    mask: (
        Bool[Array | np.ndarray, "*batch tokens"]
        | Integer[Array | np.ndarray, "*batch tokens"]
        | None
    ) = None
    segments: Integer[Array | np.ndarray, "*batch tokens"] | None = None

    def check(self, *, vocabulary: int, context: int, segments: int = 1) -> None:
        """Checks that a model that knows so many of each can embed the text. Traced tokens and
        segments are not checked; `rows` of those that it does not know are not a number.

        **Raises:** `InputError` for a text that is empty, too long or nothing but padding, or
        whose tokens or segments the model does not know.
        """
        check_fields(self)
        if not self.tokens.shape[-1]:
            raise InputError("Text: it is empty; give it at least one token.")
        if self.tokens.shape[-1] > context:
            raise InputError(
                f"A text of {self.tokens.shape[-1]} tokens is longer than the context of "
                f"{context} that the model was built for; cut it."
            )
        if is_known(self.mask) and not np.asarray(self.mask, bool).any(axis=-1).all():
            raise InputError("Text: the mask is False at all tokens of a text; drop that text.")
        _check_range("token", self.tokens, vocabulary)
        _check_range("segment", self.segments, segments)

    def domain(self, prefix: int = 0) -> TokenDomain:
        """The tokens at unit spacing, padding with a weight of zero, after so many learned
        ones."""
        domain = TokenDomain.uniform(prefix + self.tokens.shape[-1])
        if self.mask is None:
            return domain
        mask = jnp.asarray(self.mask, bool)
        seen = jnp.ones((*mask.shape[:-1], prefix), bool)
        return domain.padded(jnp.concatenate([seen, mask], axis=-1))


def _check_range(name: str, numbers: Any, known: int) -> None:
    if not is_known(numbers):
        return
    # Inside a compiled function operations of JAX on known numbers would be traced.
    numbers = np.asarray(numbers)
    wrong = numbers[(numbers < 0) | (numbers >= known)]
    if wrong.size:
        raise InputError(
            f"The text has a {name} {wrong[0]}, but the model knows 0 to {known - 1}; use the "
            "tokenizer that belongs to the model."
        )


def rows(
    table: Float[Array, "known features"], numbers: Integer[ArrayLike, "*batch"]
) -> Float[Array, "*batch features"]:
    """The rows of a table with these numbers; not a number where it has none, since traced
    numbers cannot be refused."""
    chosen = table.at[jnp.asarray(numbers)]
    return chosen.get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)


def as_text(inputs: Text | Integer[ArrayLike, "*batch tokens"]) -> Text:
    """The inputs of a model as a `Text`."""
    if isinstance(inputs, Text):
        return inputs
    return Text(inputs if isinstance(inputs, jax.Array) else np.asarray(inputs))
