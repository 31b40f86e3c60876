"""Step sizes fitted to the native outputs."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from .layers import Model
from .target import Reference


@eqx.filter_jit
def fit_rates(
    model: Model,
    target: Reference,
    *,
    steps: int = 24,
    batch: int = 32,
    learning_rate: float = 0.03,
) -> Model:
    """The step sizes λ_{l,i} of a model in layers, one for each feature, that bring what is
    read of its outputs nearest to the native model: stochastic gradient descent (Adam, the
    learning rate falling to zero along a cosine) on the squared error.

    There are many step sizes, which a few samples do not determine; give it so many that each
    is seen once or twice, `steps * batch / 2` or more.

    **Arguments:**

    - `target`: of the native model, for the samples to fit to.
    - `steps`, `batch`, `learning_rate`: of the descent; its batches follow one another through
      the samples, again and again. λ is about 1.
    """
    features = eqx.filter_eval_shape(model.embed, target.inputs)[0].shape[-1]
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))
    number = jax.tree.leaves(target.exact)[0].shape[0]
    size = min(batch, number)
    batches = np.arange(steps * size).reshape(steps, size) % number

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


def _rates(model: Any) -> tuple:
    return tuple(operator.rate for operator in model.control.blocks)


def _by_feature(rate: Array, features: int) -> Array:
    """`[intervals, features]` of `[intervals]` or of the same."""
    rate = rate.reshape(rate.shape[0], -1)
    return jnp.broadcast_to(rate, (rate.shape[0], features))
