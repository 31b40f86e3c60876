"""One optimiser step and one evaluation, each compiled once."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from ..models import AbstractModel
from ..solvers import learned
from ..tasks import AbstractTask, Batch, cross_entropy


class TrainState(eqx.Module):
    """The arrays that a run needs to go on."""

    weights: PyTree[Array]
    optimizer: PyTree[Array]
    step: Int[Array, ""]
    key: PRNGKeyArray


def initial_state(
    model: AbstractModel, optimizer: optax.GradientTransformation, key: PRNGKeyArray
) -> tuple[TrainState, PyTree]:
    """The state before the first step, and the parts of the model that are no weights."""
    weights, static = eqx.partition(model, eqx.is_inexact_array)
    # Steps reuse the memory of the state, so it must share none with the model.
    weights = jax.tree.map(jnp.copy, weights)
    state = TrainState(weights, optimizer.init(weights), jnp.array(0), key)
    return state, static


def num_parameters(state: TrainState) -> int:
    """The number of weights."""
    return sum(x.size for x in jax.tree.leaves(state.weights))


def make_train_step(
    optimizer: optax.GradientTransformation, static: PyTree, *, noisy: bool, transport: float
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
    """The compiled step: `state, batch -> state, metrics`. It never calls the host.

    **Arguments:**

    - `noisy`: whether the model draws dropout.
    - `transport`: weight of the transport cost.
    """

    def loss(weights, batch, key):
        model = eqx.combine(weights, static)
        result = cross_entropy(model, batch, key, transport=transport)
        return result.objective, result

    def step(state: TrainState, batch: Batch):
        key = jax.random.fold_in(state.key, state.step) if noisy else None
        gradient, result = jax.grad(loss, has_aux=True)(state.weights, batch, key)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.weights)
        weights = optax.apply_updates(state.weights, updates)
        metrics = {
            "loss": result.loss,
            "gradient_norm": optax.tree.norm(gradient),
            "parameter_norm": optax.tree.norm(weights),
            "update_norm": optax.tree.norm(updates),
            "field_evaluations": result.field_evaluations,
        }
        model: Any = eqx.combine(weights, static)
        metrics |= {f"solver.{name}": value for name, value in learned(model.solver).items()}
        return TrainState(weights, optimizer_state, state.step + 1, state.key), metrics

    return jax.jit(step, donate_argnums=0)


def make_evaluation(static: PyTree) -> Callable[..., dict[str, float]]:
    """The mean loss and accuracy over held-out samples: `weights, task, size, samples`."""

    @jax.jit
    def add(total, weights, batch):
        result = cross_entropy(eqx.combine(weights, static), batch)
        new = jnp.array([result.loss * result.count, result.correct, result.count])
        return total + new

    def evaluate(
        weights: PyTree, task: AbstractTask, size: int, samples: int | None = None
    ) -> dict[str, Any]:
        total = jnp.zeros(3)
        for batch in task.held_out(size, samples):
            total = add(total, weights, batch)
        loss, correct, count = (float(x) for x in total)
        name = task.held_out_name
        return {f"{name}_loss": loss / count, f"{name}_accuracy": correct / count}

    return evaluate
