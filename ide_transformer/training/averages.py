"""Means over parts of a batch, and of the weights over the steps."""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, PyTree

from ..tasks import Batch, Loss
from .optimizer import evaluated_weights


# Which weights of a run are taken: those that are trained, or their moving average.
Weights: TypeAlias = Literal["trained", "average"]


def gradient_in_parts(
    loss: Callable[..., Loss], number: int
) -> Callable[..., tuple[PyTree[Array], Loss]]:
    """The gradient of the objective of a batch, and its `Loss`, from equal parts of it that are
    computed one after the other. A part counts by its targets, so that both are those of the
    whole batch.

    **Arguments:**

    - `loss`: a function of the weights, the batch and the key.
    - `number`: of parts.
    """

    def objective(weights, batch, key, share=None):
        result = loss(weights, batch, key)
        extra = 0.0 if share is None else (share - 1) * result.loss
        return result.objective + extra, result

    gradient = jax.grad(objective, has_aux=True)
    if number == 1:
        return gradient

    def in_parts(weights, batch: Batch, key):
        own, shared = batch.divided()
        parts = jax.tree.map(lambda x: _parts(x, number), own)

        def count(part):
            # It depends on the targets alone, so that nothing is solved for it.
            whole = loss(weights, eqx.combine(part, shared), None)
            return jnp.asarray(whole.figures["loss"].count)

        counts = lax.map(count, parts)
        shares = counts * number / jnp.maximum(jnp.sum(counts), 1)

        def add(total, x):
            index, part, share = x
            drawn = None if key is None else jax.random.fold_in(key, index)
            new, result = gradient(weights, eqx.combine(part, shared), drawn, share)
            return jax.tree.map(jnp.add, total, new), result

        zero = jax.tree.map(jnp.zeros_like, weights)
        inputs = jnp.arange(number), parts, shares.astype(jnp.result_type(float))
        total, results = lax.scan(add, zero, inputs)
        means = jax.tree.map(lambda x: jnp.mean(x, axis=0), results)
        figures = jax.tree.map(lambda x: jnp.sum(x, axis=0), results.figures)
        loss_of_all = figures["loss"].value
        parts_of_it = results.objective - jax.vmap(lambda mean: mean.value)(
            results.figures["loss"]
        )
        whole = means._replace(objective=loss_of_all + jnp.mean(parts_of_it), figures=figures)
        return jax.tree.map(lambda x: x / number, total), whole

    return in_parts


def moving_average(decay: float) -> optax.GradientTransformation:
    """The mean of the weights over the last `1 / (1 - decay)` steps or so, as the state of an
    update of the weights; nothing for a decay of 0."""
    if decay:
        return optax.ema(decay)

    def update(updates, state, params=None):
        return updates, state

    return optax.GradientTransformation(lambda params: (), update)


def weights_of(state: Any, which: Weights, decay: float) -> PyTree[Array]:
    """The weights of a state of training to evaluate.

    **Arguments:**

    - `decay`: that of the moving average.
    """
    if which == "trained" or not decay:
        return evaluated_weights(state.optimizer, state.weights)
    return optax.tree.bias_correction(
        state.average.ema, decay, jnp.maximum(state.average.count, 1)
    )


def _parts(x: Array, number: int) -> Array:
    """The parts of an array along its first axis, the leading axis of the result. Each takes
    every `number`-th sample, so that on a mesh every device has as many of each part."""
    x = jnp.asarray(x)
    return jnp.swapaxes(x.reshape(len(x) // number, number, *x.shape[1:]), 0, 1)
