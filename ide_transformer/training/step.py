"""One optimiser step and one evaluation, each compiled once, and the memory they need."""

import functools as ft
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, UInt32

from ..errors import InputError
from ..integration import AbstractGradient, Direct, Recompute, Recursive
from ..models import Model
from ..solvers import learned
from ..tasks import AbstractLoss, AbstractTask, Batch, Loss, Part, averaged
from .averages import gradient_in_parts, moving_average


# The modes that work with every scheme.
_MODES: tuple[AbstractGradient, ...] = (Direct(), Recompute(), Recursive())


class Faults(eqx.Module):
    """Steps whose loss or gradient was not finite, so that their update was skipped: all of
    them, and those in a row up to now; and how often the run went back to a checkpoint."""

    bad_steps: Int[Array, ""]
    in_a_row: Int[Array, ""]
    rollbacks: Int[Array, ""]


class TrainState(eqx.Module):
    """The arrays that a run needs to go on."""

    weights: PyTree[Array]
    optimizer: PyTree[Array]
    step: Int[Array, ""]
    # The data of a random key.
    key: UInt32[Array, "..."]
    faults: Faults
    # Of the vector field, in the forward solves of all steps.
    evaluations: Float[Array, ""]
    # The moving average of the weights, see `moving_average`; nothing without one.
    average: PyTree[Array] = ()


def initial_state(
    model: Model,
    optimizer: optax.GradientTransformation,
    key: PRNGKeyArray,
    *,
    average: float = 0.0,
) -> tuple[TrainState, PyTree]:
    """The state before the first step, and the parts of the model that are no weights.

    **Arguments:**

    - `average`: see `make_train_step`.
    """
    weights, static = eqx.partition(model, eqx.is_inexact_array)
    # Steps reuse the memory of the state, so it must share none with the model.
    weights = jax.tree.map(jnp.copy, weights)
    data = jax.random.key_data(key)
    zeros = (jnp.zeros((), int) for _ in range(4))
    step, faults = next(zeros), Faults(*zeros)
    evaluations = jnp.zeros((), jnp.float32)
    start = TrainState(
        weights,
        optimizer.init(weights),
        step,
        data,
        faults,
        evaluations,
        moving_average(average).init(weights),
    )
    return start, static


def num_parameters(state: TrainState) -> int:
    """The number of weights."""
    return sum(x.size for x in jax.tree.leaves(state.weights))


def make_train_step(
    optimizer: optax.GradientTransformation,
    static: PyTree,
    loss: Callable[..., Loss],
    *,
    max_bad_steps: int = 10,
    accumulate: int = 1,
    average: float = 0.0,
    out_shardings: Any = None,
    solved: Callable[[Model], Model] = lambda model: model,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]:
    """The compiled step: `state, batch -> state, metrics`. It never calls the host.

    Where the loss or the gradient is not finite, the update is skipped. After `max_bad_steps`
    of that in a row every update is, so that it does not matter when the host comes to know.

    **Arguments:**

    - `loss`: that of a task, or an `objective` with more terms; a function of the model, the
      batch and the key.
    - `accumulate`: equal parts of a batch, one after the other.
    - `average`: decay of the moving average of the weights; 0 for none.
    - `out_shardings`: where the new state and the metrics lie; see `jax.jit`.
    - `solved`: the model, as this step solves it.
    """

    def measured(weights, batch, key):
        return loss(solved(eqx.combine(weights, static)), batch, key)

    gradient_of = gradient_in_parts(measured, accumulate)
    averaged = moving_average(average)

    def step(state: TrainState, batch: Batch):
        key = jax.random.wrap_key_data(state.key)
        key = jax.random.fold_in(key, state.step) if static.random else None
        gradient, result = gradient_of(state.weights, batch, key)
        gradient_norm = optax.tree.norm(gradient)
        faults, good = _judged(state.faults, result.objective, gradient_norm, max_bad_steps)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.weights)
        weights = optax.apply_updates(state.weights, updates)
        _, mean = averaged.update(weights, state.average)
        weights, optimizer_state, mean = jax.tree.map(
            ft.partial(jnp.where, good),
            (weights, optimizer_state, mean),
            (state.weights, state.optimizer, state.average),
        )
        metrics = {
            "loss": result.loss,
            "gradient_norm": gradient_norm,
            "parameter_norm": optax.tree.norm(weights),
            "update_norm": optax.tree.norm(updates),
            "field_evaluations": result.field_evaluations,
            "bad_steps": faults.bad_steps,
            "bad_steps_in_a_row": faults.in_a_row,
        }
        metrics |= result.terms
        model: Any = eqx.combine(weights, static)
        metrics |= {f"solver.{name}": value for name, value in learned(model.solver).items()}
        evaluations = state.evaluations + result.field_evaluations.astype(jnp.float32)
        new = TrainState(
            weights, optimizer_state, state.step + 1, state.key, faults, evaluations, mean
        )
        return new, metrics

    return jax.jit(step, donate_argnums=0, out_shardings=out_shardings)


def _judged(
    faults: Faults, loss: Array, gradient_norm: Array, limit: int
) -> tuple[Faults, Bool[Array, ""]]:
    """The faults with those of this step, and whether its update is made."""
    finite = jnp.isfinite(loss) & jnp.isfinite(gradient_norm)
    good = finite & (faults.in_a_row < limit)
    bad = (~good).astype(faults.bad_steps.dtype)
    counted = Faults(faults.bad_steps + bad, (faults.in_a_row + 1) * bad, faults.rollbacks)
    return counted, good


def rolled_back(state: TrainState) -> TrainState:
    """The state of a checkpoint, from which a run goes on with other noise and other batches:
    the same would lead to the same end."""
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), 1)
    faults = Faults(state.faults.bad_steps, jnp.zeros((), int), state.faults.rollbacks + 1)
    return eqx.tree_at(lambda s: (s.key, s.faults), state, (jax.random.key_data(key), faults))


def make_evaluation(static: PyTree) -> Callable[..., dict[str, float]]:
    """The figures of the loss of a task over held-out samples, a function of `weights, task,
    size, samples, part`; `check` is called between batches and may raise, `place` puts a batch
    on the devices."""

    @jax.jit
    def measured(loss, weights, batch):
        return loss(eqx.combine(weights, static), batch).figures

    def evaluate(
        weights: PyTree,
        task: AbstractTask,
        size: int,
        samples: int | None = None,
        part: Part = "validation",
        check: Callable[[], None] = lambda: None,
        place: Callable[[Batch], Batch] = lambda batch: batch,
    ) -> dict[str, Any]:
        def batches():
            for batch in task.held_out(size, samples, part):
                check()
                yield measured(task.loss, weights, place(batch))

        means = averaged(batches())
        if not means:
            raise InputError("None of these held-out samples has a target; take more of them.")
        return {f"{part}_{name}": mean for name, mean in means.items()}

    return evaluate


def describe_memory(
    model: Model, state: TrainState, loss: AbstractLoss, batch: Batch, temporary: int
) -> str:
    """One line on memory: parameters, optimiser, and the rest of a step with the gradient mode
    in use; then, found by tracing, what the other modes would keep for the backward pass, where
    the step takes a mebibyte or more. A second line warns if the device has less. The compiled
    step reserves `temporary` bytes."""
    used = model.discretization.gradient
    parameters, optimizer = size_bytes(state.weights), size_bytes(state.optimizer)
    text = (
        f"memory: parameters {_mebibytes(parameters)}, optimiser {_mebibytes(optimizer)}, "
        f"a step with gradient {_name(used)} {_mebibytes(temporary)}"
    )
    # Each is a trace of the whole step, which takes longer than many steps of a small model.
    if temporary >= 2**20:
        others = [
            f"{_name(mode)} keeps about {_mebibytes(kept_bytes(model, mode, loss, batch))}"
            for mode in _MODES
            if type(mode) is not type(used)
        ]
        text += f" ({'; '.join(others)})"
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    needed = parameters + optimizer + temporary
    if limit is not None and needed > limit:
        text += (
            f"\nwarning: that is {_mebibytes(needed)}, and the device has {_mebibytes(limit)}; "
            "lower training.batch_size, or take training.gradient=recursive."
        )
    return text


def kept_bytes(model: Model, mode: AbstractGradient, loss: AbstractLoss, batch: Batch) -> int:
    """Bytes that a gradient mode keeps of a step for the backward pass, without the weights."""
    model = model.with_options(gradient=mode)
    weights, static = eqx.partition(model, eqx.is_inexact_array)

    def backward(weights):
        def objective(weights):
            return loss(eqx.combine(weights, static), batch).objective

        return jax.tree.leaves(jax.vjp(objective, weights)[1])

    return max(size_bytes(jax.eval_shape(backward, weights)) - size_bytes(weights), 0)


def size_bytes(tree: PyTree) -> int:
    """Bytes of all arrays of a tree, or of their shapes."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree) if hasattr(x, "dtype"))


def _name(mode: PyTree) -> str:
    return type(mode).__name__.lower()


def _mebibytes(number: int) -> str:
    return f"{number / 2**20:,.1f} MiB"
