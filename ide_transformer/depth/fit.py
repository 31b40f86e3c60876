"""Step sizes fitted to the native outputs."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, PyTree

from .error import output_error
from .layers import Model


@eqx.filter_jit
def fit_rates(
    model: Model,
    inputs: PyTree[ArrayLike],
    exact: PyTree[Array],
    *,
    steps: int = 60,
    learning_rate: float = 0.05,
) -> Model:
    """The step sizes λ_{l,i} of a model in layers, one for each feature, that bring its
    outputs nearest to `exact`: gradient descent (Adam, the learning rate falling to zero
    along a cosine) on the squared output error of three quarters of the samples. There are
    many step sizes, so those that were best on the other quarter are returned; they are
    never worse there than those that were given.

    **Arguments:**

    - `inputs`: a batch, its first axis the samples.
    - `exact`: the outputs of the native model for `inputs`.
    - `steps`, `learning_rate`: of the descent; λ is about 1.
    """
    features = eqx.filter_eval_shape(model.embed, inputs)[0].shape[-1]
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))

    def with_rates(rates):
        return eqx.tree_at(_rates, model, rates)

    def error(rates, samples):
        ours, theirs = jax.tree.map(lambda x: x[samples], (inputs, exact))
        _, domain = model.embed(ours)
        return output_error(with_rates(rates)(ours), theirs, domain) ** 2

    number = jax.tree.leaves(exact)[0].shape[0]
    fitted, others = np.split(np.arange(number), [number - number // 4])
    # Of less than four samples none is left to judge by.
    judging = others if len(others) else fitted

    def step(carry, _):
        rates, state, best = carry
        gradient = jax.grad(error)(rates, fitted)
        now = error(rates, judging)
        best = jax.tree.map(lambda x, y: jnp.where(now < best[0], x, y), (now, rates), best)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(rates, updates), state, best), None

    rates = tuple(_by_feature(rate, features) for rate in _rates(model))
    carry = (rates, optimizer.init(rates), (jnp.inf, rates))
    (_, _, (_, best)), _ = jax.lax.scan(step, carry, None, length=steps)
    return with_rates(best)


def unit_rates(model: Model, inputs: PyTree[ArrayLike], exact: PyTree[Array]) -> Model:
    """In the place of `fit_rates`: the step sizes as they are."""
    return model


def _rates(model: Any) -> tuple:
    return tuple(operator.rate for operator in model.control.blocks)


def _by_feature(rate: Array, features: int) -> Array:
    """`[intervals, features]` of `[intervals]` or of the same."""
    rate = rate.reshape(rate.shape[0], -1)
    return jnp.broadcast_to(rate, (rate.shape[0], features))
