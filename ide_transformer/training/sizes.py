"""Sizes of a run that no machine or number format can hold, refused before they are made."""

import functools as ft
import os
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ..errors import InputError
from ..integration import AbstractGradient
from ..models import Model
from ..tasks import AbstractLoss, AbstractTask
from .config import Config, SolverConfig
from .names import shown
from .step import kept_bytes, size_bytes


def check_steps(depth: int, solver: SolverConfig) -> None:
    """Refuses steps so short that the number format of depth cannot tell them apart, or so
    many that their ends do not fit into memory."""
    steps = solver.steps_per_interval
    precision = jnp.finfo(jnp.result_type(float))
    most = int(1 / precision.eps)
    if depth * steps > most:
        raise InputError(
            f"model.depth={depth} times solver.steps_per_interval={steps}: {precision.dtype} "
            f"can tell at most {most:,} steps apart; give fewer."
        )
    # Their ends are computed in arrays of 8 bytes, which make four of them.
    available = memory()
    if available is not None and 32 * steps > available:
        raise InputError(
            f"solver.steps_per_interval={steps}: their ends take {_gibibytes(32 * steps)} of "
            f"memory, and there are {_gibibytes(available)}; give fewer."
        )


def check_memory(
    config: Config, task: AbstractTask, model: Model, mode: AbstractGradient
) -> None:
    """Refuses a run that needs more memory than there is. It makes no arrays: `model` may
    have shapes in the place of arrays.

    **Raises:** `InputError` that names the keys and gives the estimate.
    """
    available = memory()
    if available is not None and jax.default_backend() != "cpu":
        # Virtual devices share what the host has; others have as much each.
        available *= config.parallel.devices
    training = config.training
    one, two = (jax.tree.map(jnp.asarray, task.batch(0, n, training.seed)) for n in (1, 2))
    batch = jax.tree.map(ft.partial(_enlarged, training.batch_size), one, two)
    weights = size_bytes(eqx.filter(model, is_weight))
    # A weight has a gradient and, in AdamW, two moments.
    fixed = 4 * weights + size_bytes(batch)
    state = 4 * training.batch_size * task.tokens_per_sample * model.features
    # Tracing the rest takes a second; a run that is small against the machine is spared it.
    if available is None or fixed + state < available // 1000:
        return
    kept = state
    if fixed + state <= available:
        kept = max(state, _traced(model, mode, task.loss, batch))
    if fixed + kept > available:
        raise InputError(
            f"this run needs at least {_gibibytes(fixed + kept)} of memory, and there are "
            f"{_gibibytes(available)}: {_gibibytes(4 * weights)} for the weights, their "
            f"gradient and the optimiser ({_shaping(config)}), "
            f"{_gibibytes(fixed - 4 * weights + kept)} for a batch and what its gradient keeps "
            f"(training.batch_size={training.batch_size}, model.context="
            f"{config.model.context}, training.gradient={training.gradient.kind}). Lower the "
            "larger ones."
        )


def _enlarged(size: int, one: Any, two: Any) -> jax.ShapeDtypeStruct:
    """The shape of an array of a batch of so many samples, from those of one and of two;
    points are the same for all."""
    grows = one.shape != two.shape
    shape = (size, *one.shape[1:]) if grows else one.shape
    return jax.ShapeDtypeStruct(shape, one.dtype)


def memory() -> int | None:
    """Bytes of memory of the device; `None` where it does not say."""
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    if limit is not None:
        return limit
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _traced(model: Model, mode: AbstractGradient, loss: AbstractLoss, batch: Any) -> int:
    """Bytes that a step keeps for its gradient, from shapes alone."""
    found: list[int] = []
    eqx.filter_eval_shape(lambda m, b: found.append(kept_bytes(m, mode, loss, b)), model, batch)
    return found[0]


def is_weight(x: Any) -> bool:
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.inexact)


def _shaping(config: Config) -> str:
    """The keys that shape the weights."""
    model = config.model
    keys = {
        "model.pretrained": model.pretrained,
        "model.width": model.width,
        "model.hidden": model.hidden,
        "model.depth": model.depth,
        "data.vocabulary": config.data.vocabulary,
        **{f"control.options.{name}": x for name, x in config.control.options.items()},
    }
    for index, part in enumerate(model.operators):
        for name, x in part.options.items():
            keys[f"model.operators.{index}.options.{name}"] = shown(x)
    return ", ".join(f"{key}={x}" for key, x in keys.items() if x is not None)


def _gibibytes(number: int) -> str:
    return f"{number / 2**30:.3g} GiB"
