"""Memory and sizes of a run: told, or refused before anything is made."""

from collections.abc import Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ...equation import AbstractAttention, parts
from ...errors import InputError
from ...integration import AbstractGradient, Direct, Mesh, Recompute, Recursive
from ...memory import gibibytes, memory_bound, too_large
from ...models import Model
from ...tasks import AbstractLoss, AbstractTask, Batch
from ..configuration.config import Config
from .layout import enlarged
from .optimizer import path_of


def check_divisible(config: Config, model: Model, meshes: Iterable[Mesh]) -> None:
    """Refuse a layout of devices that does not divide what is to be divided, on any of the
    meshes."""
    parallel = config.parallel
    training = config.training
    batch = "training.batch_size"
    samples = training.part_size
    if training.accumulate > 1:
        batch += " / training.accumulate"
    attentions = parts(model.control, AbstractAttention)
    heads = {number for x in attentions for number in (x.heads, x.key_value_heads)}
    tokens = {model.domain.num_tokens, *(mesh.tokens for mesh in meshes if mesh.tokens)}
    wanted = [
        ("parallel.data × parallel.fsdp", parallel.data * parallel.fsdp, batch, samples),
        *(("parallel.tensor", parallel.tensor, "the number of heads", n) for n in heads),
        *(("parallel.sequence", parallel.sequence, "the number of tokens", n) for n in tokens),
    ]
    for key, devices, what, number in wanted:
        if number % devices:
            raise InputError(
                f"{key} = {devices} does not divide {what}, {number}; change one of them."
            )


def check_memory(
    config: Config, task: AbstractTask, model: Model, mode: AbstractGradient
) -> None:
    """Refuses a run that needs more memory than there is. `model` may have shapes alone."""
    available = memory()
    if available is not None and jax.default_backend() != "cpu":
        # Virtual devices share what the host has; others have as much each.
        available *= config.parallel.devices
    training = config.training
    one = jax.tree.map(jnp.asarray, task.batch(0, 1, training.seed))
    batch = enlarged(one, training.part_size)
    weights = size_bytes(model)
    # A weight has a gradient and, in AdamW, two moments.
    fixed = 4 * weights + size_bytes(enlarged(one, training.batch_size))
    state = 4 * training.part_size * task.tokens_per_sample * model.features
    # Tracing the rest takes a second; a run that is small against the machine is spared it.
    if available is None or fixed + state < available // 1000:
        return
    kept = state
    if fixed + state <= available:
        found: list[int] = []
        eqx.filter_eval_shape(
            lambda m, b: found.append(kept_bytes(m, mode, task.loss, b)), model, batch
        )
        kept = max(state, *found)
    if fixed + kept > available:
        advice = (
            f"{gibibytes(4 * weights)} are for the weights, their gradient and the optimiser, "
            f"{gibibytes(fixed - 4 * weights + kept)} for a batch and what its gradient keeps. "
            f"Lower the larger ones of {_shaping(config)}, "
            f"training.batch_size={training.batch_size}, or change training.gradient="
            f"{_name(mode)}."
        )
        raise too_large("this run", fixed + kept, available, advice)


def memory() -> int | None:
    """Bytes of memory of the device, see `memory_bound`; `None` where it does not say."""
    return memory_bound(_device_limit())


def describe_memory(
    model: Model, state: PyTree, loss: AbstractLoss, batch: Batch, temporary: int
) -> str:
    """A line on the memory of parameters, optimiser and a step, which reserves `temporary`
    bytes, and on what it would with other gradient modes; another warns if the device has
    less."""
    used = model.gradient
    parameters = size_bytes(state.weights)
    optimizer = size_bytes(state.optimizer)
    text = (
        f"memory: parameters {_mebibytes(parameters)}, optimiser {_mebibytes(optimizer)}, "
        f"a step with gradient {_name(used)} {_mebibytes(temporary)}"
    )
    # Each is a trace of the whole step, which takes longer than many steps of a small model.
    if temporary >= 2**20:
        rest = temporary - kept_bytes(model, used, loss, batch)
        others = [
            f"{_name(mode)} about {_mebibytes(rest + kept_bytes(model, mode, loss, batch))}"
            for mode in (Direct(), Recompute(), Recursive())
            if type(mode) is not type(used)
        ]
        text += f" ({'; '.join(others)})"
    limit = _device_limit()
    needed = parameters + optimizer + temporary
    if limit is not None and needed > limit:
        text += (
            f"\nwarning: that is {_mebibytes(needed)}, and the device has {_mebibytes(limit)}; "
            "lower training.batch_size, or take training.gradient=recursive."
        )
    return text


def kept_bytes(model: Model, mode: AbstractGradient, loss: AbstractLoss, batch: Any) -> int:
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


def _device_limit() -> int | None:
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")


def _shaping(config: Config) -> str:
    """The largest numbers that shape the weights, by their keys."""
    if config.model.pretrained is not None:
        return f"model.pretrained={config.model.pretrained}"
    tree = config.model_dump(mode="json", include={"data", "model", "control"})
    leaves = jax.tree.leaves_with_path(tree)
    numbers = [(x, path_of(key)) for key, x in leaves if type(x) is int]
    return ", ".join(f"{key}={x}" for x, key in sorted(numbers, reverse=True)[:6])


def _name(mode: PyTree) -> str:
    return type(mode).__name__.lower()


def _mebibytes(number: int) -> str:
    return f"{number / 2**20:,.1f} MiB"
