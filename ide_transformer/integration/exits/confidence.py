import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .exit import AbstractExit, Progress


class ConfidenceExit(AbstractExit):
    """Exit by confidence: the probability of all outputs but the most likely one,

        1 - max_y p(y),   p = softmax R(E_q),

    R the read-out, which gives logits, and E_q the state at depth T that the token will have
    if it stops. It asks whether the outputs are sure, not whether they still change.
    Reference: Schuster et al., Confident Adaptive Language Modeling, arXiv 2207.07061.

    It costs a read-out for each step.

    **Arguments:** see `AbstractExit`.
    """

    def measure(self, progress: Progress) -> Float[Array, "*batch tokens"]:
        logits = progress.read_out(progress.end(self.order))
        return 1 - jnp.max(jax.nn.softmax(logits), axis=-1)
