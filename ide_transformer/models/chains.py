"""Inputs that come from the solutions of other equations: stages, a V-cycle, an encoder."""

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Integer, PRNGKeyArray, PyTree

from ..arguments import PositiveInt, check_fields
from ..equation import (
    State,
    TokenDomain,
    check_features,
    coarsened,
    grid_of,
    interpolation,
    lattice,
)
from ..errors import InputError
from ..integration import Solution
from .images import AbstractImageInputs, ImageInputs
from .model import Model
from .parts import AbstractInputs, Embedded, Encoded, Text
from .read_outs import States
from .text_inputs import TextInputs


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
        before, built = self.before, self.windows.image_shape
        given, learned = (*before.inputs.grid, before.features), before.inputs.prefix_tokens
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

    def passed_on(
        self, inputs: PyTree[ArrayLike], u: State
    ) -> Float[Array, "*batch rows columns features"]:
        """The states of the stage before as an image, for its inputs."""
        grid = self.before.inputs.grid_of(jnp.shape(inputs))
        return u.reshape(*u.shape[:-2], *grid, u.shape[-1])

    def embed(self, inputs: PyTree[ArrayLike], *, key: PRNGKeyArray | None = None) -> Embedded:
        before_key, own_key = _split(key, 2)
        solution = self.before.solve(inputs, key=before_key)
        states = self.before.outputs(solution.u1)
        embedded = self.windows.embed(self.passed_on(inputs, states), key=own_key)
        return embedded._replace(before=(solution,))


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
        self.spacing, self.period, self.width = domain.steps, domain.period, width

    @property
    def features(self) -> int:
        return self.width

    @property
    def domain(self) -> TokenDomain:
        return lattice(self.numbers, self.spacing, self.period)

    def embed(self, inputs: PyTree[ArrayLike], *, key: PRNGKeyArray | None = None) -> Embedded:
        u, domain = jnp.asarray(inputs), self.domain
        check_features(self, u, self.width)
        if u.shape[-2:-1] != (domain.num_tokens,):
            raise InputError(
                f"GridInputs: states of shape {u.shape} on a grid of {domain.num_tokens} "
                "tokens; give one for each."
            )
        return Embedded(u, domain)


class VCycleInputs(AbstractInputs):
    """A V-cycle of equations: on a grid of tokens, on coarser ones and back, as in multigrid:

        down:  v_l = Φ_l(u_l),   u_{l+1} = R v_l                     l = 0 … L-1,
        up:    w_L = Φ_L(u_L),   w_l = Ψ_l(v_l + P(w_{l+1} - u_{l+1}))   l = L-1 … 0,

    with `Φ_l`, `Ψ_l` solves of an equation each, from depth 0 to its T, on the grid Ω_l whose
    points are the middles of blocks of two points along each axis of Ω_{l-1}. R is the mean of
    a block, P linear interpolation. The model of these inputs is the last solve, `Ψ_0`.

    What a coarser grid adds to its own initial state comes back, so that one on which nothing
    happens changes nothing (the full approximation scheme of Brandt, Math. Comp. 31, 1977). R
    and P keep constants and linear functions, at the ends too: for smooth states the result
    converges at order 2 as the grid is refined.

    **Arguments:**

    - `inputs`: of `Φ_0`. Tokens lie on a grid, in any dimension and without a class token.
    - `levels`: the models of the other solves, of `GridInputs`, in their order `Φ_0, …, Φ_L,
      Ψ_{L-1}, …, Ψ_1`; 2 L of them. Each is solved on the grid of its place.

    **Raises:** `InputError` when called for a grid that cannot be halved so often.
    """

    inputs: AbstractInputs
    levels: tuple[Model[GridInputs, States], ...]

    def __check_init__(self):
        number = len(self.levels)
        if not number or number % 2:
            raise InputError(
                f"VCycleInputs: {number} levels; give two for one coarser grid, before it and "
                "on it, and two more for each further one, on the way down and back."
            )

    @property
    def features(self) -> int:
        return self.inputs.features

    @property
    def domain(self) -> TokenDomain:
        return self.inputs.domain

    def with_tokens(self, tokens: int | tuple[int, int]) -> "VCycleInputs":
        return dataclasses.replace(self, inputs=self.inputs.with_tokens(tokens))

    def embed(self, inputs: PyTree[ArrayLike], *, key: PRNGKeyArray | None = None) -> Embedded:
        *keys, own_key = _split(key, len(self.levels) + 1)
        embedded = self.inputs.embed(inputs, key=own_key)
        all_grids = _grids(embedded.domain, len(self.levels) // 2)
        levels, solutions = zip(self.levels, keys, strict=True), []

        def solved(u: Array, grid: TokenDomain) -> Array:
            level, key = next(levels)
            level = dataclasses.replace(level, inputs=GridInputs(grid, level.features))
            solutions.append(level.solve(u, key=key))
            return solutions[-1].u1

        def cycle(u: Array, grids: list[TokenDomain]) -> Array:
            v = solved(u, grids[0])
            if len(grids) == 1:
                return v
            fine, coarse, *_ = grids
            u = interpolation(fine, coarse)(v)
            w = v + interpolation(coarse, fine)(cycle(u, grids[1:]) - u)
            return w if len(grids) == len(all_grids) else solved(w, fine)

        w = cycle(embedded.u0, all_grids)
        before = *embedded.before, *solutions
        return embedded._replace(u0=w, domain=all_grids[0], before=before)


class SourceAndText(NamedTuple):
    """Inputs of an `EncoderDecoder`, with the same batch axes.

    - `source`: the inputs of the encoder, or an `Encoded` that it made of them before.
    - `text`: the tokens of the decoder, `[..., tokens]`, or a `Text`.
    """

    source: PyTree[ArrayLike] | Encoded
    text: Integer[ArrayLike, "*batch tokens"] | Text


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
        states, weights = self.encoder.outputs(solution.u1), domain.weights
        if weights is not None:
            weights = jnp.broadcast_to(weights, states.shape[:-1])
        return Encoded(states, weights), (solution,)

    def embed(self, inputs: SourceAndText, *, key: PRNGKeyArray | None = None) -> Embedded:
        if not isinstance(inputs, SourceAndText):
            kind = type(inputs).__name__
            raise InputError(f"EncodedInputs: inputs of {kind}; give SourceAndText(…, text).")
        text_key, encoder_key = _split(key, 2)
        encoded, before = self.encoded(inputs.source, key=encoder_key)
        embedded = self.text.embed(inputs.text, key=text_key)
        return embedded._replace(encoded=encoded, before=before)


def _split(key: PRNGKeyArray | None, number: int) -> list[PRNGKeyArray | None]:
    """So many keys; none without a key."""
    return [None] * number if key is None else [*jax.random.split(key, number)]


def _grids(domain: TokenDomain, depth: int) -> list[TokenDomain]:
    """The grid of a domain and so many coarser ones, with points that are known."""
    with jax.ensure_compile_time_eval():
        grid = grid_of("VCycleInputs", domain)
        grids = [lattice(grid, domain.steps, domain.period)]
        for _ in range(depth):
            grids.append(coarsened(grids[-1]))
    return grids
