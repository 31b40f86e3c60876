"""Inputs that come from the solutions of other equations: stages, an encoder."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Integer, PRNGKeyArray, PyTree

from ..arguments import PositiveInt, check_fields, checked
from ..equation import TokenDomain, check_features, grid_of, lattice
from ..errors import InputError
from ..integration import Solution
from .images import AbstractImageInputs, ImageInputs
from .model import Model
from .parts import AbstractInputs, Embedded, Encoded, Text
from .read_outs import States
from .text_inputs import TextInputs


@checked
class StageInputs(AbstractImageInputs):
    """Windows of the states of another equation, each on a grid of its own,

        u_i' = Σ_j A_ij(u_i; θ_i(t)) on Ω_i,   u_i(0) = E_i(u_{i-1}(T_{i-1})),

    the states at depth T as an image whose channels are the features. E_i restricts to a
    coarser grid of tokens, with more features; that is a convolutional vision Transformer (Wu
    et al., arXiv 2103.15808).

    **Arguments:**

    - `before`: the model of the equation before, whose outputs are its `States()`.
    - `windows`: E, for images of its grid and features.
    """

    before: Model[AbstractImageInputs, States]
    windows: ImageInputs
    image_shape: tuple[int, int, int] = eqx.field(static=True, init=False)

    def __post_init__(self):
        self.image_shape = self.before.inputs.image_shape

    def __check_init__(self):
        before = self.before
        built = self.windows.image_shape
        given = (*before.inputs.grid, before.features)
        learned = before.inputs.prefix_tokens
        if learned or built != given:
            raise InputError(
                f"StageInputs: the stage before gives {given[0]} by {given[1]} tokens of "
                f"{given[2]} features and {learned} learned ones, but the next one was built "
                f"for {built}; give it image_shape={given}, and class_token=True to the last "
                "stage only."
            )

    @property
    def features(self) -> int:
        return self.windows.features

    @property
    def domain(self) -> TokenDomain:
        return self.windows.domain

    @property
    def prefix_tokens(self) -> int:
        return self.windows.prefix_tokens

    def grid_of(self, shape: tuple[int, ...]) -> tuple[int, int]:
        before = self.before
        return self.windows.grid_of((*before.inputs.grid_of(shape), before.features))

    def embed(self, inputs: PyTree[ArrayLike], *, key: PRNGKeyArray | None = None) -> Embedded:
        before_key, own_key = (None, None) if key is None else jax.random.split(key)
        solution = self.before.solve(inputs, key=before_key)
        states = self.before.outputs(solution.u1)
        grid = self.before.inputs.grid_of(jnp.shape(inputs))
        image = states.reshape(*states.shape[:-2], *grid, states.shape[-1])
        embedded = self.windows.embed(image, key=own_key)
        return embedded._replace(before=(solution,))


@checked
class GridInputs(AbstractInputs):
    """States `[..., tokens, width]` on a grid of tokens, as `TokenDomain.uniform`, `periodic`
    and `midpoint` make it. Where it begins does not matter."""

    # The numbers that make the grid. Its points would count as weights.
    numbers: tuple[int, ...] = eqx.field(static=True)
    spacing: tuple[float, ...] = eqx.field(static=True)
    period: tuple[float | None, ...] | None = eqx.field(static=True)
    width: int = eqx.field(static=True)

    def __init__(self, domain: TokenDomain, width: PositiveInt):
        self.numbers = grid_of("GridInputs", domain)
        self.spacing = domain.steps
        self.period = domain.period
        self.width = width

    @property
    def features(self) -> int:
        return self.width

    @property
    def domain(self) -> TokenDomain:
        return lattice(self.numbers, self.spacing, self.period)

    def embed(self, inputs: PyTree[ArrayLike], *, key: PRNGKeyArray | None = None) -> Embedded:
        u = jnp.asarray(inputs)
        domain = self.domain
        check_features(self, u, self.width)
        if u.shape[-2:-1] != (domain.num_tokens,):
            raise InputError(
                f"GridInputs: states of shape {u.shape} on a grid of {domain.num_tokens} "
                "tokens; give one for each."
            )
        return Embedded(u, domain)


class SourceAndText(NamedTuple):
    """Inputs of an `EncoderDecoder`, with the same batch axes.

    - `source`: the inputs of the encoder, or an `Encoded` that it made of them before.
    - `text`: the tokens of the decoder, `[..., tokens]`, or a `Text`.
    """

    source: PyTree[ArrayLike] | Encoded
    text: Integer[ArrayLike, "*batch tokens"] | Text


@checked
class EncodedInputs(AbstractInputs):
    """A text, and the states of an encoder at its depth T, which enter the equation through
    cross-attention; given as a `SourceAndText`. `text` are the inputs of the decoder.
    Reference: Vaswani et al., arXiv 1706.03762."""

    encoder: Model[AbstractInputs, States]
    text: TextInputs

    @property
    def features(self) -> int:
        return self.text.features

    @property
    def domain(self) -> TokenDomain:
        return self.text.domain

    @property
    def vocabulary(self) -> int:
        """The number of tokens that the decoder knows."""
        return self.text.vocabulary

    @property
    def context(self) -> int:
        """The longest text, in tokens."""
        return self.text.context

    @property
    def embedding(self) -> Float[Array, "vocabulary features"]:
        """The token embeddings of the decoder, for its read-out."""
        return self.text.embedding

    def of_text(self, text: Text) -> SourceAndText:
        """The text after a source whose states are zero."""
        batch = text.tokens.shape[:-1]
        return SourceAndText(Encoded(jnp.zeros((*batch, 1, self.encoder.features))), text)

    def encoded(
        self, source: PyTree[ArrayLike] | Encoded, *, key: PRNGKeyArray | None = None
    ) -> tuple[Encoded, tuple[Solution, ...]]:
        """The states of the encoder and the weights of their domain, and the solution that
        gave them, if there is one."""
        if isinstance(source, Encoded):
            return check_fields(source), ()
        solution = self.encoder.solve(source, key=key)
        _, domain = self.encoder.embed(source)
        states = self.encoder.outputs(solution.u1)
        weights = domain.weights
        if weights is not None:
            weights = jnp.broadcast_to(weights, states.shape[:-1])
        return Encoded(states, weights), (solution,)

    def embed(self, inputs: SourceAndText, *, key: PRNGKeyArray | None = None) -> Embedded:
        if not isinstance(inputs, SourceAndText):
            kind = type(inputs).__name__
            raise InputError(f"EncodedInputs: inputs of {kind}; give SourceAndText(…, text).")
        text_key, encoder_key = (None, None) if key is None else jax.random.split(key)
        encoded, before = self.encoded(inputs.source, key=encoder_key)
        embedded = self.text.embed(inputs.text, key=text_key)
        return embedded._replace(encoded=encoded, before=before)
