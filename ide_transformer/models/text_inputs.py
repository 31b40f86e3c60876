"""Inputs that are texts, whose tokens are the points of a one-dimensional Ω_x."""

from dataclasses import KW_ONLY

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int, Integer, PRNGKeyArray

from ..arguments import (
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    check_fields,
    checked,
    is_known,
)
from ..equation import (
    AbstractConstraint,
    Free,
    FunctionSpace,
    Linear,
    State,
    TokenDomain,
    drop,
    with_fields,
)
from ..errors import InputError
from .parts import AbstractInputs, Embedded, Text


@checked
class TextInputs(AbstractInputs):
    """Texts: tokens are the points of a one-dimensional Ω_x,

        u(x, 0) = A N(s E[token x] + P[x] + S[segment x]).

    Inputs are integers `[..., tokens]`, or a `Text`.

    **Arguments:**

    - `embedding`, `scale`: E, `[vocabulary, embedded]`, and s.
    - `context`: the longest text, in tokens.
    - `positions`: P, `[places, embedded]`; `None` if the operators see positions.
    - `segments`: S, `[kinds, embedded]`, or `None`.
    - `prefix`: learned tokens before the text, each `[embedded]`.
    - `lift`: A, from embedded to features (ALBERT); `None` for the identity.
    - `normalization`, `dropout`: N, and the dropout rate before it.
    - `padding`: a token that positions skip (RoBERTa). It has row `padding` of `positions`; the
      other tokens have the rows from `padding + 1` on. `None` if rows are positions.
    - `masks`: whether texts may have padding.
    """

    embedding: Float[Array, "vocabulary embedded"]
    context: PositiveInt = eqx.field(static=True)
    _: KW_ONLY
    positions: Float[Array, "places embedded"] | None = None
    segments: Float[Array, "kinds embedded"] | None = None
    prefix: tuple[Float[Array, " embedded"], ...] = ()
    lift: Linear | None = None
    normalization: AbstractConstraint = Free()
    padding: NonNegativeInt | None = eqx.field(static=True, default=None)
    scale: float = eqx.field(static=True, default=1.0)
    dropout: Fraction = eqx.field(static=True, default=0.0)
    masks: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        places = self.context if self.padding is None else self.padding + 1 + self.context
        if self.positions is not None and self.positions.shape[0] < places:
            rows = self.positions.shape[0]
            raise InputError(f"TextInputs: got {rows} positions, expected at least {places}.")

    @classmethod
    @checked
    def build(
        cls,
        vocabulary: PositiveInt,
        context: PositiveInt,
        features: PositiveInt,
        *,
        key: PRNGKeyArray,
        learned_positions: bool = True,
        class_token: bool = False,
        masks: bool = True,
        normalization: AbstractConstraint = Free(),
        scale: float = 1.0,
        dropout: Fraction = 0.0,
        std: NonNegativeFloat = 0.02,
    ) -> "TextInputs":
        """Draw the tables.

        **Arguments:** see the class, and

        - `learned_positions`: whether to add P; otherwise use positions such as `Rotary`.
        - `class_token`: whether to put a learned token before the text.
        - `std`: the standard deviation of E and P.
        """
        # The read-out uses the third key.
        token_key, position_key, _ = jax.random.split(key, 3)

        def table(rows: int, key: PRNGKeyArray) -> Float[Array, "rows features"]:
            return std * jax.random.normal(key, (rows, features))

        return cls(
            table(vocabulary, token_key),
            context,
            positions=table(context, position_key) if learned_positions else None,
            prefix=(jnp.zeros(features),) if class_token else (),
            masks=masks,
            normalization=normalization,
            scale=scale,
            dropout=dropout,
        )

    @property
    def vocabulary(self) -> int:
        """The number of different tokens."""
        return self.embedding.shape[0]

    @property
    def features(self) -> int:
        return (self.embedding if self.lift is None else self.lift.weight).shape[1]

    @property
    def domain(self) -> TokenDomain:
        return TokenDomain.uniform(len(self.prefix) + self.context)

    @property
    def prefix_tokens(self) -> int:
        return len(self.prefix)

    def of_text(self, text: Text) -> Text:
        return text

    def embed(
        self,
        inputs: Integer[ArrayLike, "*batch tokens"] | Text,
        *,
        key: PRNGKeyArray | None = None,
        start: Int[ArrayLike, ""] = 0,
    ) -> Embedded:
        """The state at depth 0 and its domain; `start` is the position of the first token."""
        kinds = 1 if self.segments is None else self.segments.shape[0]
        text = check_text(inputs, self.vocabulary, self.context, kinds)
        if text.mask is not None and not self.masks:
            raise InputError("Text: this model takes no mask; build it with class_token=True.")
        u = take_rows(self.embedding, text.tokens) * self.scale
        if self.positions is not None:
            if self.padding is None:
                places = lax.dynamic_slice_in_dim(self.positions, start, u.shape[-2])
            else:
                counted = jnp.asarray(text.tokens) != self.padding
                places = self.positions[self.padding + jnp.cumsum(counted, axis=-1) * counted]
            u = u + jnp.broadcast_to(places, u.shape)
        if self.segments is not None:
            segments = jnp.zeros(u.shape[-2], int) if text.segments is None else text.segments
            u = u + jnp.broadcast_to(take_rows(self.segments, segments), u.shape)
        u = drop(after_prefix(self.prefix, u), self.dropout, key)
        u = self.normalization.project(u)
        u = u if self.lift is None else self.lift(u)
        domain = TokenDomain.uniform(u.shape[-2])
        if text.mask is not None:
            prefix_mask = jnp.ones((*text.mask.shape[:-1], len(self.prefix)), bool)
            text_mask = jnp.asarray(text.mask, bool)
            domain = domain.padded(jnp.concatenate([prefix_mask, text_mask], axis=-1))
        return Embedded(u, domain)

    def at_points(self, space: FunctionSpace) -> AbstractInputs:
        if self.lift is not None:
            return super().at_points(space)
        of_values = space.features.of_values
        tables = {x: getattr(self, x) for x in ("embedding", "positions", "segments")}
        return with_fields(
            self,
            **{name: None if x is None else of_values(x) for name, x in tables.items()},
            prefix=tuple(map(of_values, self.prefix)),
            normalization=self.normalization.at_points(space),
        )


def after_prefix(
    prefix: tuple[Float[Array, " features"], ...], u: State
) -> Float[Array, "*batch all features"]:
    """Puts learned tokens before a state."""
    first = [jnp.broadcast_to(token, (*u.shape[:-2], 1, len(token))) for token in prefix]
    return jnp.concatenate([*first, u], axis=-2) if prefix else u


def as_text(inputs: Text | Integer[ArrayLike, "*batch tokens"]) -> Text:
    if isinstance(inputs, Text):
        return inputs
    return Text(inputs if isinstance(inputs, jax.Array) else np.asarray(inputs))


def check_text(
    inputs: Text | Integer[ArrayLike, "*batch tokens"],
    vocabulary: int,
    context: int,
    segments: int = 1,
) -> Text:
    """Converts the inputs of a model to a `Text`, and checks it unless it is traced."""
    text = as_text(inputs)
    check_fields(text)
    length = text.tokens.shape[-1]
    is_masked = is_known(text.mask) and not np.asarray(text.mask, bool).any(axis=-1).all()
    if not text.tokens.size or is_masked:
        raise InputError("Text: a text has no tokens; drop it, or pass at least one token.")
    if length > context:
        raise InputError(f"A text of {length} tokens is longer than the context of {context}.")
    for name, array, rows in (
        ("token", text.tokens, vocabulary),
        ("segment", text.segments, segments),
    ):
        # NumPy, since JAX would trace these operations inside a compiled function.
        indices = np.asarray(array) if is_known(array) else np.zeros(0)
        outside = indices[(indices < 0) | (indices >= rows)]
        if outside.size:
            raise InputError(f"Text: got a {name} {outside[0]}, expected 0 to {rows - 1}.")
    return text


def take_rows(
    table: Float[Array, "rows features"], indices: Integer[ArrayLike, "*batch"]
) -> Float[Array, "*batch features"]:
    """The rows of a table at `indices`; NaN for rows that the table lacks."""
    return table.at[jnp.asarray(indices)].get(
        mode="fill", fill_value=jnp.nan, wrap_negative_indices=False
    )
