"""The cost, error and loss of a solve, and statistics of repeated measurements."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..models import Model


def spread(values: Sequence[float] | np.ndarray) -> float | None:
    """The standard deviation of independent values; `None` for a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def standard_error(values: Float[np.ndarray, " values"]) -> float | None:
    """The standard error of the mean of independent values; `None` for a single value."""
    deviation = spread(values)
    return None if deviation is None else deviation / math.sqrt(len(values))


class Data(NamedTuple):
    """Inputs, with functions that judge their solutions.

    - `inputs`: a batch.
    - `losses`: maps the outputs to the loss, of each sample or of all.
    - `error`: maps the state at depth T and the outputs to the error.
    """

    inputs: PyTree[ArrayLike]
    losses: Callable[[PyTree[Array]], Float[ArrayLike, "*samples"]]
    error: Callable[[Array, PyTree[Array]], Array]


class Measured(NamedTuple):
    """The measurements of a solve. `u1` is the state at depth T, NaN if the solve failed. Only
    a timed solve has its median time and the temporary memory of its program."""

    u1: Array
    evaluations: float
    error: float
    losses: np.ndarray
    milliseconds: float | None = None
    mebibytes: float | None = None

    @property
    def loss(self) -> float:
        return float(np.mean(self.losses))


def measure(model: Model, data: Data, rounds: int = 0) -> Measured:
    """Solves the data and measures the solution; solves `rounds` more times to time it."""
    if not rounds:
        return judge(model, *solve(model, data.inputs), data)
    arrays, static = eqx.partition(model, eqx.is_array)
    inputs = jax.tree.map(jnp.asarray, data.inputs)
    timed = jax.jit(lambda arrays, inputs: _solve(eqx.combine(arrays, static), inputs))
    program = timed.lower(arrays, inputs).compile()
    u1, evaluations = jax.block_until_ready(program(arrays, inputs))
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        jax.block_until_ready(program(arrays, inputs))
        seconds.append(time.perf_counter() - start)
    memory = program.memory_analysis()
    assert memory is not None
    return judge(model, u1, evaluations, data)._replace(
        milliseconds=1e3 * statistics.median(seconds),
        mebibytes=memory.temp_size_in_bytes / 2**20,
    )


def judge(model: Model, u1: Array, evaluations: Array | float, data: Data) -> Measured:
    """The measurements of a state at depth T."""
    outputs = model.outputs(u1, data.inputs)
    error = float(data.error(u1, outputs))
    return Measured(u1, float(evaluations), error, np.asarray(data.losses(outputs)))


def _solve(model: Model, inputs: PyTree[ArrayLike]) -> tuple[Array, Array]:
    """The state at depth T, and the field evaluations averaged over samples."""
    solution = model.solve(inputs)
    u1 = jnp.where(jnp.all(solution.succeeded), solution.u1, jnp.nan)
    return u1, jnp.mean(solution.stats["field_evaluations"])


solve = eqx.filter_jit(_solve)
