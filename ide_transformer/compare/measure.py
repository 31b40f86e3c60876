"""Solve a batch with a model, and measure its cost, error and loss."""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..models import Model


def standard_error(values: Float[np.ndarray, " values"]) -> float | None:
    """The standard error of the mean of independent values; `None` for a single one."""
    number = len(values)
    return float(np.std(values, ddof=1) / np.sqrt(number)) if number > 1 else None


class Data(NamedTuple):
    """Inputs, and how their solutions are judged.

    - `inputs`: a batch.
    - `losses`: from the outputs to the loss, of each sample or of all.
    - `error`: from the state at depth T and the outputs to the error.
    """

    inputs: PyTree[ArrayLike]
    losses: Callable[[PyTree[Array]], Float[ArrayLike, "*samples"]]
    error: Callable[[Array, PyTree[Array]], Array]


class Measured(NamedTuple):
    """A solve: the state at depth T, NaN if it failed, field evaluations, error and losses;
    if it was timed, the median time and the temporary memory of the program."""

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
    """Solves the data, and `rounds` times more to time it."""
    if not rounds:
        return judge(model, *solved(model, data.inputs), data)
    arrays, static = eqx.partition(model, eqx.is_array)
    inputs = jax.tree.map(jnp.asarray, data.inputs)
    solve = jax.jit(lambda arrays, inputs: _solve(eqx.combine(arrays, static), inputs))
    program = solve.lower(arrays, inputs).compile()
    u1, evaluations = jax.block_until_ready(program(arrays, inputs))
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        jax.block_until_ready(program(arrays, inputs))
        seconds.append(time.perf_counter() - began)
    memory = program.memory_analysis()
    assert memory is not None
    return judge(model, u1, evaluations, data)._replace(
        milliseconds=1e3 * statistics.median(seconds),
        mebibytes=memory.temp_size_in_bytes / 2**20,
    )


def judge(model: Model, u1: Array, evaluations: Array | float, data: Data) -> Measured:
    """The measurement of a known state."""
    outputs = model.outputs(u1, data.inputs)
    error = float(data.error(u1, outputs))
    return Measured(u1, float(evaluations), error, np.asarray(data.losses(outputs)))


def _solve(model: Model, inputs: PyTree[ArrayLike]) -> tuple[Array, Array]:
    """The state at depth T and the field evaluations, their mean over samples."""
    solution = model.solve(inputs)
    u1 = jnp.where(jnp.all(solution.succeeded), solution.u1, jnp.nan)
    return u1, jnp.mean(solution.stats["field_evaluations"])


solved = eqx.filter_jit(_solve)
