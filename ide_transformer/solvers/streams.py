"""Schemes with several states side by side."""

import abc
import math
from typing import ClassVar, NamedTuple, TypeAlias

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from ..arguments import PositiveInt
from ..equation import LayerNorm, RMSNorm, affine
from .connections import AbstractConnected
from .scheme import AbstractFieldScheme, Step, StepField


# The states side by side.
Streams: TypeAlias = Float[Array, "*batch tokens streams features"]


class Connection(NamedTuple):
    """The connection of an operator with the n streams, for each token: the weights of the
    streams in what it sees, those of its increment in the streams, and those of the old streams
    in the new ones, `mix[i, j]` that of j in i."""

    read: Float[Array, "*batch tokens streams"]
    write: Float[Array, "*batch tokens streams"]
    mix: Float[Array, "*batch tokens streams streams"]


def first_reads(
    num_steps: int, operators: int, streams: int
) -> Float[Array, "steps operators streams"]:
    """Ones for the stream that each operator of each step reads at first, another each time."""
    place = jnp.arange(num_steps * operators).reshape(num_steps, operators) % streams
    return jnp.eye(streams)[place]


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
    def connection(self, x: Streams, step: Int[Array, ""], index: int) -> Connection:
        """The connection of operator `index` in a step, in the presence of streams `x`."""

    def start(self, field: StepField, u: Array) -> tuple[Streams, Int[Array, ""]]:
        """The streams, and the number of steps made."""
        return jnp.stack([u] * self.streams, axis=-2), jnp.array(0)

    def make_step(self, field: StepField, u: Array, state: PyTree, made_jump: PyTree) -> Step:
        x, made = state
        # A solve of more steps is refused; counting its cost makes some.
        step = jnp.minimum(made, self.num_steps - 1)
        for index, one in enumerate(field.of_operators(self)):
            read, write, mix = self.connection(x, step, index)
            increment = one(0, jnp.einsum("...n,...nd->...d", read, x))
            x = mix @ x + write[..., None] * increment[..., None, :]
        x = x.astype(u.dtype)
        return Step.between(u, jnp.mean(x, axis=-2), state=(x, made + 1))


class HyperConnections(AbstractStreams):
    """Streams with learned connections, see `AbstractStreams`: with the streams normalised by a
    layer norm without gain, x̄,

        (read_j, mix_ij) = α_j + s tanh(x̄_j W),   write_i = β_i + s' tanh(x̄_i · w),

    for each step and operator. It starts with W = 0, w = 0, each operator reading another
    stream, all writing to each, and nothing mixed, which is `LieTrotter(Euler())`. Learned
    connections belong to their step: there is no limit of small steps. The mean of the streams
    is read out, where the paper has the sum, which an output norm does not tell apart.
    Reference: Zhu et al., Hyper-Connections, arXiv 2409.19606, the dynamic form.

    **Arguments:**

    - `num_steps`: steps of a solve; it cannot make more.
    - `operators`: how many the equation has.
    - `features`: width of the state.
    - `streams`: n.
    """

    alpha: Float[Array, "steps operators streams one_and_streams"]
    beta: Float[Array, "steps operators streams"]
    alpha_weight: Float[Array, "steps operators features one_and_streams"]
    beta_weight: Float[Array, "steps operators features"]
    alpha_scale: Float[Array, "steps operators"]
    beta_scale: Float[Array, "steps operators"]

    def __init__(
        self,
        num_steps: PositiveInt,
        operators: PositiveInt,
        features: PositiveInt,
        streams: PositiveInt = 4,
    ):
        each = num_steps, operators
        read = first_reads(num_steps, operators, streams)[..., None]
        mix = jnp.broadcast_to(jnp.eye(streams), (*each, streams, streams))
        self.alpha = jnp.concatenate([read, mix], axis=-1)
        self.beta = jnp.ones((*each, streams))
        self.alpha_weight = jnp.zeros((*each, features, 1 + streams))
        self.beta_weight = jnp.zeros((*each, features))
        self.alpha_scale = jnp.full(each, 0.01)
        self.beta_scale = jnp.full(each, 0.01)

    @property
    def num_steps(self) -> int:
        return self.beta.shape[0]

    @property
    def streams(self) -> int:
        return self.beta.shape[-1]

    def connection(self, x: Streams, step: Int[Array, ""], index: int) -> Connection:
        normal = LayerNorm().project(x)
        dynamic = jnp.tanh(normal @ self.alpha_weight[step, index])
        alpha = jnp.broadcast_to(self.alpha[step, index], dynamic.shape)
        alpha = alpha + self.alpha_scale[step, index] * dynamic
        dynamic = jnp.tanh(normal @ self.beta_weight[step, index])
        beta = affine(self.beta_scale[step, index] * dynamic, None, self.beta[step, index])
        return Connection(alpha[..., 0], beta, jnp.swapaxes(alpha[..., 1:], -1, -2))


# Sweeps of Sinkhorn and Knopp, as published.
_SWEEPS = 20
# Initial bias of a connection that is open, and minus that of one that is closed.
_OPEN = 4.0


class DoublyStochasticConnections(AbstractStreams):
    """Streams whose mixture keeps their sum, see `AbstractStreams`: with all streams of a token
    as one vector z, normalised by its root mean square,

        read = σ(a + s z W),   write = 2 σ(a' + s' z W'),   mix = P(exp(A + s'' z W'')),

    for each step and operator; P makes rows and columns sum to 1, by 20 sweeps of Sinkhorn and
    Knopp over columns and rows. W starts at zero, and the biases, which the paper leaves open,
    so that each operator reads mainly another stream and little is mixed. Learned connections
    belong to their step: there is no limit of small steps. The mean of the streams is read out,
    where the paper has the sum. Reference: Manifold-Constrained Hyper-Connections, arXiv
    2512.24880.

    **Arguments:** see `HyperConnections`.
    """

    bias: Float[Array, "steps operators connections"]
    weight: Float[Array, "steps operators streams_and_features connections"]
    scale: Float[Array, "steps operators three"]

    def __init__(
        self,
        num_steps: PositiveInt,
        operators: PositiveInt,
        features: PositiveInt,
        streams: PositiveInt = 4,
    ):
        each = num_steps, operators
        read = _OPEN * (2 * first_reads(num_steps, operators, streams) - 1)
        write = jnp.zeros((*each, streams))
        mix = _OPEN * (2 * jnp.eye(streams).ravel() - 1)
        self.bias = jnp.concatenate(
            [read, write, jnp.broadcast_to(mix, (*each, streams**2))], axis=-1
        )
        self.weight = jnp.zeros((*each, streams * features, self.bias.shape[-1]))
        self.scale = jnp.full((*each, 3), 0.01)

    @property
    def num_steps(self) -> int:
        return self.bias.shape[0]

    @property
    def streams(self) -> int:
        # n + n + n² connections.
        return math.isqrt(1 + self.bias.shape[-1]) - 1

    def connection(self, x: Streams, step: Int[Array, ""], index: int) -> Connection:
        n = self.streams
        whole = RMSNorm(eps=1e-6).project(x.reshape(*x.shape[:-2], -1))
        kinds = np.repeat(np.arange(3), (n, n, n * n))
        scale = self.scale[step, index][kinds]
        logits = affine(whole @ self.weight[step, index], scale, self.bias[step, index])
        read, write, mix = jnp.split(logits, (n, 2 * n), axis=-1)
        mix = doubly_stochastic(mix.reshape(*mix.shape[:-1], n, n))
        return Connection(jax.nn.sigmoid(read), 2 * jax.nn.sigmoid(write), mix)


def doubly_stochastic(logits: Float[Array, "*shape n n"]) -> Float[Array, "*shape n n"]:
    """`exp(logits)`, scaled by 20 sweeps: the rows sum to 1, the columns nearly. The sweeps are
    made on the logarithm, whose derivative stays finite where one is nearly zero."""

    def sweep(log: Array, _: None) -> tuple[Array, None]:
        log = log - jax.nn.logsumexp(log, axis=-2, keepdims=True)
        return log - jax.nn.logsumexp(log, axis=-1, keepdims=True), None

    log, _ = lax.scan(sweep, logits, length=_SWEEPS)
    return jnp.exp(log)
