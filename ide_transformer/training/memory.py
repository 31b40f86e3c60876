"""The memory that a run needs, before its first step."""

import equinox as eqx
import jax
from jaxtyping import PyTree

from ..integration import AbstractGradient, Direct, Recompute, Recursive
from ..models import AbstractModel
from ..tasks import Batch, cross_entropy
from .step import TrainState


# The modes that work with every scheme.
_MODES: tuple[AbstractGradient, ...] = (Direct(), Recompute(), Recursive())


def describe_memory(
    model: AbstractModel, state: TrainState, batch: Batch, temporary: int
) -> str:
    """One line on memory: parameters, optimiser, and the rest of a step with the gradient mode
    in use; then, found by tracing, what the other modes would keep for the backward pass. A
    second line warns if the device has less.

    **Arguments:**

    - `temporary`: bytes that the compiled step reserves.
    """
    used = model.discretization.gradient
    others = [
        f"{_name(mode)} keeps about {_mebibytes(kept_bytes(model, mode, batch))}"
        for mode in _MODES
        if type(mode) is not type(used)
    ]
    parameters, optimizer = size_bytes(state.weights), size_bytes(state.optimizer)
    text = (
        f"memory: parameters {_mebibytes(parameters)}, optimiser {_mebibytes(optimizer)}, "
        f"a step with gradient {_name(used)} {_mebibytes(temporary)} ({'; '.join(others)})"
    )
    limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit")
    needed = parameters + optimizer + temporary
    if limit is not None and needed > limit:
        text += (
            f"\nwarning: that is {_mebibytes(needed)}, and the device has {_mebibytes(limit)}; "
            "lower training.batch_size, or take training.gradient=recursive."
        )
    return text


def kept_bytes(model: AbstractModel, mode: AbstractGradient, batch: Batch) -> int:
    """Bytes that a gradient mode keeps of a step for the backward pass, without the weights."""
    model = eqx.tree_at(lambda m: m.discretization.gradient, model, mode)
    weights, static = eqx.partition(model, eqx.is_inexact_array)

    def backward(weights):
        def loss(weights):
            return cross_entropy(eqx.combine(weights, static), batch).objective

        return jax.tree.leaves(jax.vjp(loss, weights)[1])

    return max(size_bytes(jax.eval_shape(backward, weights)) - size_bytes(weights), 0)


def size_bytes(tree: PyTree) -> int:
    """Bytes of all arrays of a tree, or of their shapes."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree) if hasattr(x, "dtype"))


def _name(mode: PyTree) -> str:
    return type(mode).__name__.lower()


def _mebibytes(number: int) -> str:
    return f"{number / 2**20:,.1f} MiB"
