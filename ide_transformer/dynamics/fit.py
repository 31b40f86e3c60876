import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from ..models import AbstractModel
from .layers import Model, stacked_operators
from .target import Target


@eqx.filter_jit
def fit_rates(
    model: Model,
    target: Target,
    *,
    steps: int = 24,
    batch: int = 32,
    learning_rate: float = 0.03,
) -> Model:
    """Fit the step sizes λ_{l,i} of a model in layers, one for each feature, so that what is
    read of its outputs comes nearest to the native model: stochastic gradient descent on the
    squared error (Adam, its learning rate falling to zero along a cosine).

    There are many step sizes, and a few samples do not determine them. Give it so many samples
    that each is seen once or twice: `steps * batch / 2` or more.

    **Arguments:**

    - `target`: of the native model, for the samples to fit to.
    - `steps`, `batch`, `learning_rate`: of the descent. Its batches follow one another through
      the samples and then begin again. λ is about 1.
    """
    features = eqx.filter_eval_shape(model.embed, target.inputs)[0].shape[-1]
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
    size = min(batch, target.samples)
    batches = np.arange(steps * size).reshape(steps, size) % target.samples

    def with_rates(rates):
        return eqx.tree_at(_rates, model, rates)

    def step(carry, samples):
        rates, state = carry
        part = target.part(samples)
        gradient = jax.grad(lambda x: part.error(with_rates(x)) ** 2)(rates)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(rates, updates), state), None

    rates = tuple(_by_feature(rate, features) for rate in _rates(model))
    (rates, _), _ = jax.lax.scan(step, (rates, optimizer.init(rates)), batches)
    return with_rates(rates)


def _rates(model: AbstractModel) -> tuple:
    return tuple(operator.rate for operator in stacked_operators(model))


def _by_feature(rate: Array, features: int) -> Array:
    """`[intervals, features]` from `[intervals]`; unchanged if it has features already."""
    rate = rate.reshape(rate.shape[0], -1)
    return jnp.broadcast_to(rate, (rate.shape[0], features))
