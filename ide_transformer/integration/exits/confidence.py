import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .exit import AbstractExit, Progress, only_logits


class ConfidenceExit(AbstractExit):
    """Exit by confidence: the probability of anything but the most likely output,

        1 - max_y p_k(y),   p_k = softmax(R(u_k)),

    R the read-out. It asks whether the outputs are sure and not whether they still change.
    Reference: Schuster et al., Confident Adaptive Language Modeling, arXiv 2207.07061.

    **Arguments:** see `AbstractExit`.
    """

    def measure(self, progress: Progress) -> Float[Array, "*batch tokens"]:
        logits = only_logits(self, progress.read_out(progress.u))
        return 1 - jnp.max(jax.nn.softmax(logits), axis=-1)
