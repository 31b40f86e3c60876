"""Base classes of inputs and read-outs, and the records that pass between them."""

import abc
from typing import NamedTuple, NoReturn, TypeAlias

import equinox as eqx
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Integer, PRNGKeyArray, PyTree, Real

from ..equation import FunctionSpace, State, TokenDomain, parts
from ..errors import InputError
from ..integration import Solution


# Inputs as a user passes them.
InputArrays: TypeAlias = PyTree[Real[ArrayLike, "..."] | Bool[ArrayLike, "..."]]


class Text(NamedTuple):
    """Tokens, with their mask and their segments.

    - `tokens`: `[..., tokens]`, integers.
    - `mask`: `[..., tokens]`, `False` or 0 at padding; `None` without padding.
    - `segments`: `[..., tokens]`, the index of each token's sentence (BERT); `None` for 0.
    """

    tokens: Integer[Array | np.ndarray, "*batch tokens"]
    mask: (
        Bool[Array | np.ndarray, "*batch tokens"]
        | Integer[Array | np.ndarray, "*batch tokens"]
        | None
    ) = None
    segments: Integer[Array | np.ndarray, "*batch tokens"] | None = None


class Timed(NamedTuple):
    """Inputs with the time Δt of the map.

    - `inputs`: the inputs of the model without a time.
    - `duration`: Δt, a number, or `[samples]` for one time per sample.
    """

    inputs: PyTree[ArrayLike]
    duration: Float[ArrayLike, "*samples"]


class Encoded(NamedTuple):
    """States of an encoder at depth T, on the domain Ω_x' of cross-attention.

    - `states`: `[..., tokens, features]`.
    - `weights`: `[..., tokens]`, quadrature weights, zero at padding; `None` for equal ones.
    """

    states: State
    weights: Float[Array, "*batch tokens"] | None = None

    @property
    def domain(self) -> TokenDomain:
        """Ω_x' at unit spacing; cross-attention uses only its weights."""
        return TokenDomain(TokenDomain.uniform(self.states.shape[-2]).points, self.weights)


class Embedded(NamedTuple):
    """Embedded inputs: the start of a solve.

    - `u0`: the state at depth 0, `[..., tokens, features]`.
    - `domain`: Ω_x.
    - `encoded`: the states that cross-attention sees at every depth, if any.
    - `start`: what the scheme needs besides u0, such as an initial velocity.
    - `before`: the solutions of earlier equations behind u0, in order.
    - `rate`: λ in `u_t = λ Σ_i A_i(u; θ(t))`, a number or `[samples]`; `None` for 1.
    """

    u0: State
    domain: TokenDomain
    encoded: Encoded | None = None
    start: PyTree = None
    before: tuple[Solution, ...] = ()
    rate: Float[Array, "*samples"] | None = None


class AbstractInputs(eqx.Module):
    """Embeds inputs as an initial state. A subclass defines `features`, `domain`, `embed`."""

    @property
    @abc.abstractmethod
    def features(self) -> int:
        """The width of the state."""

    @property
    @abc.abstractmethod
    def domain(self) -> TokenDomain:
        """The domain of a full-sized input."""

    @abc.abstractmethod
    def embed(self, inputs: PyTree[ArrayLike], *, key: PRNGKeyArray | None = None) -> Embedded:
        """The state at depth 0 and its domain. `key` draws the dropout; `None` for none."""

    @property
    def random(self) -> bool:
        """Whether `embed` with a key draws random numbers."""
        inner = parts(vars(self), AbstractInputs)
        return bool(getattr(self, "dropout", 0)) or any(part.random for part in inner)

    @property
    def prefix_tokens(self) -> int:
        """The number of learned tokens before the input's own."""
        return 0

    def with_domain_of(self, inputs: PyTree[ArrayLike] | None) -> "AbstractInputs":
        """This object with the domain of `inputs`, for read-outs that integrate over it."""
        return self

    def of_text(self, text: Text) -> PyTree[ArrayLike]:
        """Inputs of the model with this text, for generation and the test of causality. Define
        also `vocabulary` and `context`."""
        raise InputError(
            f"{type(self).__name__} cannot be the inputs of a causal model; define "
            "of_text(text), vocabulary and context."
        )

    def with_tokens(self, tokens: int | tuple[int, int]) -> "AbstractInputs":
        """This object for another number of tokens; by default any number fits."""
        return self

    def at_points(self, space: FunctionSpace) -> "AbstractInputs":
        """This object at the points of Ω_y, for `Model.space`; its weights are coefficients."""
        _refuse_functions(self)


class AbstractReadOut(eqx.Module):
    """Maps the state at depth T to the outputs. A subclass defines `__call__`."""

    @abc.abstractmethod
    def __call__(self, u: State, inputs: AbstractInputs) -> PyTree[Array]:
        """The outputs for a state at depth T. `inputs` are the model's, for shared weights."""

    def shaped(self, outputs: PyTree[Array], inputs: PyTree[ArrayLike]) -> PyTree[Array]:
        """The outputs, reshaped to fit the model's `inputs`; by default unchanged."""
        return outputs

    def check(self, inputs: AbstractInputs) -> None:
        """**Raises:** `InputError` if the read-out does not fit the inputs."""

    def at_points(self, space: FunctionSpace, inputs: AbstractInputs) -> "AbstractReadOut":
        """The read-out at the points of Ω_y, for `Model.space`; `inputs` hold coefficients."""
        _refuse_functions(self)


def _refuse_functions(part: AbstractInputs | AbstractReadOut) -> NoReturn:
    raise InputError(f"{type(part).__name__} cannot be a function of the features.")
