from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...arguments import checked
from .exit import AbstractExit, Progress


@checked
def divergence(
    expected: Float[Array, "*points classes"], given: Float[Array, "*points classes"]
) -> Float[Array, "*points"]:
    """`KL(p ‖ q) = Σ_y p(y) log p(y)/q(y)`, in nats, of the distributions with these logits:
    what the cross-entropy grows by, on average, where q is given and p is right."""
    p, q = (jax.nn.log_softmax(logits) for logits in (expected, given))
    return jnp.sum(jnp.exp(p) * (p - q), axis=-1)


@checked
def relative_difference(
    expected: Float[Array, "samples points *channels"],
    given: Float[Array, "samples points *channels"],
) -> Float[Array, "samples points"]:
    """`|expected - given|` of functions at each point, the norm over channels, in units of the
    root mean square of `|expected|` over the points of the sample."""
    samples, points = expected.shape[:2]
    shape = samples, points, -1
    expected, given = expected.reshape(shape), given.reshape(shape)
    size = jnp.sqrt(jnp.mean(jnp.sum(expected**2, axis=-1), axis=-1, keepdims=True))
    # Nothing is small beside a function that is zero.
    return jnp.linalg.norm(expected - given, axis=-1) / jnp.where(size == 0, 1, size)


class EstimatedExit(AbstractExit):
    """Exit by an estimate of the effect that the rest of the solve has on the outputs,

        d( R(E_{q+1}), R(E_q) ),

    R the read-out and E_p the state at depth T extrapolated with order p, see `Progress.end`.
    E_q, q = `order`, is what the token will have if it stops, and E_{q+1} the better
    approximation of the full solve; as in an embedded pair, their difference estimates the
    error of the lower one. With `divergence` the tolerance is in nats: about the mean by which
    the loss of a token that stops may grow.

    Both come from the last two steps, so no field is evaluated for them. They cost two
    read-outs for each step: little with a small vocabulary, more than a layer with a large
    one. Reference for embedded pairs: Hairer, Nørsett, Wanner, Solving Ordinary Differential
    Equations I, section II.4.

    **Arguments:** see `AbstractExit`, and

    - `difference`: d, a function of the outputs that are expected and those that are given:
      `divergence` of logits, `relative_difference` of functions, or one of yours.
    """

    order: Literal[0, 1] = eqx.field(static=True, default=1)
    difference: Callable[[Array, Array], Array] = eqx.field(static=True, default=divergence)

    def measure(self, progress: Progress) -> Float[Array, "*batch tokens"]:
        orders = self.order + 1, self.order
        expected, given = (progress.read_out(progress.end(order)) for order in orders)
        return self.difference(expected, given)
