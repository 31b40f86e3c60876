import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from ...arguments import PositiveInt
from ...equation import RMSNorm, affine
from .streams import AbstractStreams, Connection, first_reads


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

    def connection(
        self,
        x: Float[Array, "*batch tokens streams features"],
        step: Int[Array, ""],
        index: int,
    ) -> Connection:
        n = self.streams
        whole = RMSNorm(eps=1e-6).project(x.reshape(*x.shape[:-2], -1))
        kinds = np.repeat(np.arange(3), (n, n, n * n))
        scale = self.scale[step, index][kinds]
        logits = affine(whole @ self.weight[step, index], scale, self.bias[step, index])
        read, write, mix = jnp.split(logits, (n, 2 * n), axis=-1)
        mix = doubly_stochastic(mix.reshape(*mix.shape[:-1], n, n))
        return Connection(jax.nn.sigmoid(read), 2 * jax.nn.sigmoid(write), mix)


def doubly_stochastic(logits: Float[Array, "*shape n n"]) -> Float[Array, "*shape n n"]:
    """`exp(logits)`, scaled by 20 sweeps so that columns and rows sum to 1: after the last the
    rows do, the columns nearly. The sweeps are made on the logarithm, whose derivative stays
    finite where a whole column or row is nearly zero."""

    def sweep(log: Array, _: None) -> tuple[Array, None]:
        log = log - jax.nn.logsumexp(log, axis=-2, keepdims=True)
        return log - jax.nn.logsumexp(log, axis=-1, keepdims=True), None

    log, _ = lax.scan(sweep, logits, length=_SWEEPS)
    return jnp.exp(log)
