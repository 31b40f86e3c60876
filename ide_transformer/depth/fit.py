"""Step sizes fitted to the native outputs."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, PyTree

from ..equation import TokenDomain
from .error import output_error
from .layers import Model


@eqx.filter_jit
def fit_rates(
    model: Model,
    inputs: PyTree[ArrayLike],
    exact: PyTree[Array],
    domain: TokenDomain,
    *,
    steps: int = 60,
    learning_rate: float = 0.05,
) -> Model:
    """The step sizes λ_{l,i} of a model in layers, one for each feature, that bring its
    outputs nearest to `exact`: gradient descent (Adam, the learning rate falling to zero
    along a cosine) on the squared output error. The best that were met are returned.

    **Arguments:**

    - `exact`: the outputs of the native model for `inputs`.
    - `domain`: of these inputs, for its padding.
    - `steps`, `learning_rate`: of the descent; λ is about 1.
    """
    features = eqx.filter_eval_shape(model.embed, inputs)[0].shape[-1]
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))

    def with_rates(rates):
        return eqx.tree_at(_rates, model, rates)

    @jax.value_and_grad
    def error(rates):
        return output_error(with_rates(rates)(inputs), exact, domain) ** 2

    def step(carry, _):
        rates, state, best = carry
        now, gradient = error(rates)
        best = jax.tree.map(lambda x, y: jnp.where(now < best[0], x, y), (now, rates), best)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(rates, updates), state, best), None

    rates = tuple(_by_feature(rate, features) for rate in _rates(model))
    carry = (rates, optimizer.init(rates), (jnp.inf, rates))
    (_, _, (_, best)), _ = jax.lax.scan(step, carry, None, length=steps)
    return with_rates(best)


def unit_rates(
    model: Model, inputs: PyTree[ArrayLike], exact: PyTree[Array], domain: TokenDomain
) -> Model:
    """In the place of `fit_rates`: the step sizes as they are."""
    return model


def _rates(model: Any) -> tuple:
    return tuple(operator.rate for operator in model.control.blocks)


def _by_feature(rate: Array, features: int) -> Array:
    """`[intervals, features]` of `[intervals]` or of the same."""
    rate = rate.reshape(rate.shape[0], -1)
    return jnp.broadcast_to(rate, (rate.shape[0], features))
