"""The training state, and the compiled step that updates it."""

import functools as ft
import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree, UInt32

from ...equation import partition_weights
from ...errors import InputError
from ...models import Model
from ...solvers import learned_numbers
from ...tasks import Batch, Loss


# The weights of a run: as trained, or their moving average.
Weights: TypeAlias = Literal["trained", "average"]


def gradient_in_parts(
    loss: Callable[..., Loss], num_parts: int
) -> Callable[..., tuple[PyTree[Array], Loss]]:
    """Returns a function that gives the gradient of the objective of a batch, and its `Loss`.
    It computes `num_parts` equal parts of the batch one after the other and weights each by its
    targets, so that both are exact. `loss` takes the weights, the batch and the key."""

    def objective(weights, batch, key, share=None):
        result = loss(weights, batch, key)
        extra = 0.0 if share is None else (share - 1) * result.loss
        return result.objective + extra, result

    gradient = jax.grad(objective, has_aux=True)
    if num_parts == 1:
        return gradient

    def divide(x: Array) -> Array:
        # Each part has every `num_parts`-th sample, so that every device has as many of each.
        x = jnp.asarray(x)
        return jnp.swapaxes(x.reshape(len(x) // num_parts, num_parts, *x.shape[1:]), 0, 1)

    def in_parts(weights, batch: Batch, key):
        by_sample, shared = batch.divided()
        parts = jax.tree.map(divide, by_sample)

        def count(part):
            # The count depends on the targets alone, so the compiler removes the solve.
            result = loss(weights, eqx.combine(part, shared), None)
            return jnp.asarray(result.figures["loss"].count)

        counts = lax.map(count, parts)
        shares = counts * num_parts / jnp.maximum(jnp.sum(counts), 1)

        def add(total, x):
            index, part, share = x
            part_key = jax.random.fold_in(key, index)
            new, result = gradient(weights, eqx.combine(part, shared), part_key, share)
            return jax.tree.map(jnp.add, total, new), result

        zero = jax.tree.map(jnp.zeros_like, weights)
        inputs = jnp.arange(num_parts), parts, shares.astype(jnp.result_type(float))
        total, results = lax.scan(add, zero, inputs)
        means = jax.tree.map(lambda x: jnp.mean(x, axis=0), results)
        figures = jax.tree.map(lambda x: jnp.sum(x, axis=0), results.figures)
        added = results.objective - results.loss
        objective = jnp.mean(shares * results.loss) + jnp.mean(added)
        result = Loss(objective, figures, means.field_evaluations, means.terms)
        return jax.tree.map(lambda x: x / num_parts, total), result

    return in_parts


def moving_average(decay: float) -> optax.GradientTransformation:
    """Averages the weights over about `1 / (1 - decay)` steps; with 0 it averages nothing."""
    return optax.ema(decay) if decay else optax.identity()


def weights_of(state: Any, choice: Weights, decay: float) -> PyTree[Array]:
    """The weights of a state of training to evaluate. `decay` belongs to the average."""
    if choice == "trained" or not decay:
        return state.weights
    # The average starts at zero, which keeps a share of `decay ** count` in it.
    count = state.average.count
    rest = -jnp.expm1(count * math.log(decay))
    trained, frozen = partition_weights(state.weights)
    mean = jax.tree.map(
        lambda x, mean: jnp.where(count == 0, x, mean / rest).astype(x.dtype),
        trained,
        state.average.ema,
    )
    return eqx.combine(mean, frozen)


class Faults(eqx.Module):
    """Counts of skipped updates, in all and in a row, and of returns to a checkpoint."""

    bad_steps: Int[Array, ""]
    in_a_row: Int[Array, ""]
    rollbacks: Int[Array, ""]


class TrainState(eqx.Module):
    """The arrays that training needs to continue."""

    weights: PyTree[Array]
    optimizer: PyTree[Array]
    step: Int[Array, ""]
    # The data of a random key.
    key: UInt32[Array, "..."]
    faults: Faults
    # Field evaluations of all forward solves.
    evaluations: Float[Array, ""]
    # See `moving_average`.
    average: PyTree[Array]


def initial_state(
    model: Model,
    optimizer: optax.GradientTransformation,
    key: PRNGKeyArray,
    *,
    average: float = 0.0,
) -> tuple[TrainState, PyTree]:
    """The state before the first step, and the model without its weights."""
    weights, static = eqx.partition(model, eqx.is_inexact_array)
    # Steps reuse the memory of the state, so the state shares none with the model.
    weights = jax.tree.map(jnp.copy, weights)
    trained, _ = partition_weights(weights)
    step, *zeros = (jnp.zeros((), int) for _ in range(4))
    start = TrainState(
        weights,
        optimizer.init(trained),
        step,
        jax.random.key_data(key),
        Faults(*zeros),
        jnp.zeros((), jnp.float32),
        moving_average(average).init(trained),
    )
    return start, static


def make_train_step(
    optimizer: optax.GradientTransformation,
    static: PyTree,
    loss: Callable[..., Loss],
    *,
    max_bad_steps: int = 10,
    accumulate: int = 1,
    average: float = 0.0,
    out_shardings: Any = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
    """The compiled step: `state, batch -> state, metrics`. It never calls the host.

    A step whose loss or gradient is not finite skips its update. After `max_bad_steps` skipped
    updates in a row, all updates are skipped, so the host may notice late.

    **Arguments:**

    - `loss`: the loss of a task, or an `objective` with more terms.
    - `accumulate`: parts of a batch, computed one after the other to save memory.
    - `average`: decay of the moving average of the weights; 0 for none.
    - `out_shardings`: places of the new state and the metrics; see `jax.jit`.
    """

    averaged = moving_average(average)

    def step(state: TrainState, batch: Batch):
        trained, frozen = partition_weights(state.weights)

        def loss_of_weights(trained, batch, key):
            return loss(eqx.combine(trained, frozen, static), batch, key)

        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        gradient, result = gradient_in_parts(loss_of_weights, accumulate)(trained, batch, key)
        gradient_norm = optax.tree.norm(gradient)
        faults = state.faults
        is_finite = jnp.isfinite(result.objective) & jnp.isfinite(gradient_norm)
        is_good = is_finite & (faults.in_a_row < max_bad_steps)
        bad = (~is_good).astype(faults.bad_steps.dtype)
        faults = Faults(faults.bad_steps + bad, (faults.in_a_row + 1) * bad, faults.rollbacks)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, trained)
        changed = optax.apply_updates(trained, updates)
        _, mean = averaged.update(changed, state.average)
        changed, optimizer_state, mean = jax.tree.map(
            ft.partial(jnp.where, is_good),
            (changed, optimizer_state, mean),
            (trained, state.optimizer, state.average),
        )
        weights = eqx.combine(changed, frozen)
        model = eqx.combine(weights, static)
        metrics = {
            "loss": result.loss,
            "gradient_norm": gradient_norm,
            "parameter_norm": optax.tree.norm(weights),
            "update_norm": optax.tree.norm(updates),
            "field_evaluations": result.field_evaluations,
            "bad_steps": faults.bad_steps,
            "bad_steps_in_a_row": faults.in_a_row,
            **result.terms,
            **learned_numbers({"solver": model.solver}),
        }
        evaluations = state.evaluations + result.field_evaluations.astype(jnp.float32)
        new = TrainState(
            weights, optimizer_state, state.step + 1, state.key, faults, evaluations, mean
        )
        return new, metrics

    return jax.jit(step, donate_argnums=0, out_shardings=out_shardings)


def roll_back(state: TrainState, bad_steps: int) -> TrainState:
    """The state from which a run continues after it went back to a checkpoint. It has another
    random key, since the old noise and batches would fail again."""
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), 1)
    zero = jnp.zeros((), int)
    faults = Faults(jnp.asarray(bad_steps, int), zero, state.faults.rollbacks + 1)
    return eqx.tree_at(lambda s: (s.key, s.faults), state, (jax.random.key_data(key), faults))


def better_solve(model: Model) -> str:
    """Names a change of the configuration that makes fewer solves fail."""
    if model.mesh.controller is None:
        return "smaller steps in depth (solver.steps)"
    return "more adaptive steps (solver.max_steps) or larger tolerances (solver.rtol and atol)"


def require_samples(means: dict[str, float]) -> dict[str, float]:
    """Raises `InputError` if no sample has a target."""
    if not means:
        raise InputError("None of these held-out samples has a target; use more of them.")
    return means
