"""Interfaces of the parts of a model, its inputs and its read-out, and what passes there."""

import abc
import dataclasses
from typing import NamedTuple, TypeAlias

import equinox as eqx
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Integer, PRNGKeyArray, PyTree, Real

from ..equation import FunctionSpace, State, TokenDomain, parts
from ..errors import InputError
from ..integration import Solution


# Inputs of a model as a user gives them.
InputArrays: TypeAlias = PyTree[Real[ArrayLike, "..."] | Bool[ArrayLike, "..."]]


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


class Encoded(NamedTuple):
    """States of an encoder at depth T, on the domain Ω_x' over which cross-attention
    integrates.

    - `states`: `[..., tokens, features]`.
    - `weights`: `[..., tokens]`, the quadrature weights of Ω_x' with the batch axes of the
      states, zero at padding; `None` for equal weights.
    """

    states: State
    weights: Float[Array, "*batch tokens"] | None = None

    @property
    def domain(self) -> TokenDomain:
        """Ω_x', at unit spacing: cross-attention depends on its weights only."""
        points = TokenDomain.uniform(self.states.shape[-2]).points
        return TokenDomain(points, self.weights)


class Embedded(NamedTuple):
    """Embedded inputs: where a solve begins.

    - `u0`: the state at depth 0, `[..., tokens, features]`.
    - `domain`: Ω_x, on which it lives.
    - `encoded`: the states that cross-attention sees at every depth, if any.
    - `start`: from which the scheme starts besides u0, such as a velocity.
    - `before`: the solutions of other equations from which it comes, in their order.
    """

    u0: State
    domain: TokenDomain
    encoded: Encoded | None = None
    start: PyTree = None
    before: tuple[Solution, ...] = ()


class AbstractInputs(eqx.Module):
    """The way of inputs into an equation. One of your own defines `features`, `domain` and
    `embed`."""

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
        """The state at depth 0 and its domain. `key` draws the dropout; without one there is
        none."""

    @property
    def random(self) -> bool:
        """Whether it draws a dropout of what is embedded, where it has a key."""
        inside = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        own = bool(inside.get("dropout"))
        return own or any(part.random for part in parts(inside, AbstractInputs))

    @property
    def prefix_tokens(self) -> int:
        """The number of learned tokens before the tokens of the inputs."""
        return 0

    def of_text(self, text: Text, given: PyTree = None) -> PyTree[ArrayLike]:
        """Inputs in which `text` is what is read and written, so that it can be tried whether a
        token sees later ones; for inputs with the attributes `vocabulary` and `context`. All
        else is taken from `given`, other inputs of the model, if there are any."""
        raise InputError(
            f"{type(self).__name__}: a test has to show that no token sees later ones; define "
            "of_text(text, given), the inputs for a text, and give vocabulary and context."
        )

    def with_tokens(self, tokens: int | tuple[int, int]) -> "AbstractInputs":
        """Inputs with another number of tokens: the same, where they say by themselves how many
        they have. For `Model.on`."""
        return self

    def at_points(self, space: FunctionSpace) -> "AbstractInputs":
        """The inputs whose weights are coefficients of functions of a feature, at the points
        of Ω_y. For `Model.space`."""
        raise InputError(
            f"{type(self).__name__} is no function of the features; TextInputs without a lift "
            "and FunctionInputs are."
        )


class AbstractReadOut(eqx.Module):
    """The way from the state at depth T to the outputs. One of your own defines `__call__`."""

    @abc.abstractmethod
    def __call__(self, u: State, inputs: AbstractInputs) -> PyTree[Array]:
        """The outputs, from the state at depth T; `inputs` of the model are given for weights
        that both share."""

    def shaped(self, outputs: PyTree[Array], inputs: PyTree[ArrayLike]) -> PyTree[Array]:
        """The outputs in the shape that belongs to these inputs of a model; by default as they
        are."""
        return outputs

    def check(self, inputs: AbstractInputs) -> None:
        """**Raises:** `InputError` for inputs that it does not fit."""

    def at_points(self, space: FunctionSpace, inputs: AbstractInputs) -> "AbstractReadOut":
        """The read-out whose weights are coefficients of functions of a feature, at the points
        of Ω_y; `inputs` hold the coefficients. For `Model.space`."""
        raise InputError(
            f"{type(self).__name__} is no function of the features; TokenLogits, MeanHead and "
            "FunctionValues are."
        )
