import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ...arguments import PositiveInt
from ...equation import LayerNorm, affine
from .streams import AbstractStreams, Connection, first_reads


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

    def connection(
        self,
        x: Float[Array, "*batch tokens streams features"],
        step: Int[Array, ""],
        index: int,
    ) -> Connection:
        normal = LayerNorm().project(x)
        dynamic = jnp.tanh(normal @ self.alpha_weight[step, index])
        alpha = jnp.broadcast_to(self.alpha[step, index], dynamic.shape)
        alpha = alpha + self.alpha_scale[step, index] * dynamic
        dynamic = jnp.tanh(normal @ self.beta_weight[step, index])
        beta = affine(self.beta_scale[step, index] * dynamic, None, self.beta[step, index])
        return Connection(alpha[..., 0], beta, jnp.swapaxes(alpha[..., 1:], -1, -2))
