"""Base class of the schemes with several states side by side."""

import abc
from typing import ClassVar, NamedTuple

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from ..base.scheme import AbstractFieldScheme, operator_terms
from ..base.step import Step, StepField
from .past import AbstractConnected


class Connection(NamedTuple):
    """The connection of an operator with the n streams, for each token.

    - `read: [..., tokens, n]`: the weights of the streams in what it sees.
    - `write: [..., tokens, n]`: those of its increment in the streams.
    - `mix: [..., tokens, n, n]`: entry (i, j) is the weight of the old stream j in the new
      stream i.
    """

    read: Float[Array, "*batch tokens streams"]
    write: Float[Array, "*batch tokens streams"]
    mix: Float[Array, "*batch tokens streams streams"]


def first_reads(
    num_steps: int, operators: int, streams: int
) -> Float[Array, "steps operators streams"]:
    """For each operator of each step the stream that it reads at first: 1 for one after the
    other, 0 for the others."""
    place = jnp.arange(num_steps * operators).reshape(num_steps, operators) % streams
    return jnp.eye(streams)[place]


class Streams(eqx.Module):
    """The streams `[..., tokens, n, features]`, and the number of steps made."""

    values: Float[Array, "*batch tokens streams features"]
    step: Int[Array, ""]


class AbstractStreams(AbstractConnected, AbstractFieldScheme):
    """A scheme with n states side by side, the streams x_1, …, x_n; for each operator in turn

        x_i ← Σ_j mix_ij x_j + write_i h A(Σ_j read_j x_j).

    All streams start from the state at depth 0, and the state is their mean.
    """

    term_structure: ClassVar = diffrax.MultiTerm

    @property
    @abc.abstractmethod
    def streams(self) -> int:
        """n."""

    @abc.abstractmethod
    def connection(
        self,
        x: Float[Array, "*batch tokens streams features"],
        step: Int[Array, ""],
        index: int,
    ) -> Connection:
        """The connection of operator `index` in a step, in the presence of streams `x`."""

    def start(self, field: StepField, u: Array) -> Streams:
        return Streams(jnp.stack([u] * self.streams, axis=-2), jnp.array(0))

    def make_step(self, field: StepField, u: Array, state: PyTree, made_jump: PyTree) -> Step:
        x = state.values
        # A solve of more steps is refused; counting its cost makes some.
        step = jnp.minimum(state.step, self.num_steps - 1)
        for index, term in enumerate(operator_terms(self, field.terms)):
            read, write, mix = self.connection(x, step, index)
            increment = field.with_terms(term)(0, jnp.einsum("...n,...nd->...d", read, x))
            x = mix @ x + write[..., None] * increment[..., None, :]
        x = x.astype(u.dtype)
        return Step.between(u, jnp.mean(x, axis=-2), state=Streams(x, state.step + 1))
