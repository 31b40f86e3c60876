"""Estimates the memory of a model and of its training step."""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree

from ...integration import AbstractGradient, Direct, Recompute, Recursive
from ...models import Model
from ...tasks import AbstractLoss, Batch


def describe_memory(
    model: Model, state: PyTree, loss: AbstractLoss, batch: Batch, temporary: int
) -> str:
    """A line on the memory of a run whose step reserves `temporary` bytes, and on its memory
    with other gradient modes. Another line warns if the device has less."""
    gradient = model.gradient
    parameters = size_bytes(state.weights)
    optimizer = size_bytes(state.optimizer)
    text = (
        f"memory: parameters {_mebibytes(parameters)}, optimiser {_mebibytes(optimizer)}, "
        f"a step with gradient {mode_name(gradient)} {_mebibytes(temporary)}"
    )
    # Each mode traces the whole step, which is worth its time where memory matters.
    if temporary >= 2**30:
        rest = temporary - residual_bytes(model, gradient, loss, batch)
        others = []
        for mode in (Direct(), Recompute(), Recursive()):
            if type(mode) is not type(gradient):
                size = rest + residual_bytes(model, mode, loss, batch)
                others.append(f"{mode_name(mode)} about {_mebibytes(size)}")
        text += f" ({'; '.join(others)})"
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    total = parameters + optimizer + temporary
    if limit is not None and total > limit:
        text += (
            f"\nwarning: together {_mebibytes(total)}, and the device has "
            f"{_mebibytes(limit)}; lower training.batch_size, or use "
            "training.gradient=recursive."
        )
    return text


def residual_bytes(model: Model, mode: AbstractGradient, loss: AbstractLoss, batch: Any) -> int:
    """Bytes that a gradient mode keeps of a step for the backward pass, without the weights."""
    model = model.with_gradient(mode)
    weights, static = eqx.partition(model, eqx.is_inexact_array)

    def backward(weights):
        def objective(weights):
            return loss(eqx.combine(weights, static), batch).objective

        return jax.tree.leaves(jax.vjp(objective, weights)[1])

    return max(size_bytes(jax.eval_shape(backward, weights)) - size_bytes(weights), 0)


def size_bytes(tree: PyTree) -> int:
    """Bytes of all arrays of a tree, or of their shapes."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree) if hasattr(x, "dtype"))


def mode_name(mode: PyTree) -> str:
    return type(mode).__name__.lower()


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
