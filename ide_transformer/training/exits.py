"""The evaluation of a model whose tokens stop before the end of a solve."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..errors import InputError
from ..integration import AbstractExit, EstimatedExit
from ..models import Mesh, Model
from ..tasks import AbstractLoss, AbstractTask, Batch, Mean, Part, averaged
from .evaluation import (
    BATCH,
    LoadedModel,
    at_least_one,
    check_finite,
    check_part,
    evaluation_task,
)
from .meshes import model_on


def estimated_exit(loss: AbstractLoss, **options: Any) -> EstimatedExit:
    """The exit for the outputs that a loss measures.

    **Arguments:**

    - `options`: see `EstimatedExit`.

    **Raises:** `InputError` where the outputs have no difference that could be estimated.
    """
    if loss.difference is None:
        raise InputError(
            f"--exit: the outputs that {type(loss).__name__} measures have no difference that "
            "could be estimated; define `difference` of the loss."
        )
    return EstimatedExit(1.0, difference=loss.difference, **options)


def evaluate_exits(
    loaded: LoadedModel,
    exit: AbstractExit,
    tolerances: Sequence[float],
    meshes: Sequence[Mesh] = (Mesh(),),
    text: str | None = None,
    samples: int | None = None,
    part: Part = "validation",
) -> list[dict[str, Any]]:
    """`evaluate_loss` of a model whose tokens stop before the end: for each mesh a row
    of the full solve, without a tolerance, and one for each tolerance. `evaluations` is
    the mean over all tokens, `saved` the part of those of the full solve.

    **Arguments:**

    - `exit`: whose tolerance is replaced.
    - `tolerances`: 0 or more.
    - `meshes`: in depth; by default that of the model.
    - `text`, `samples`, `part`: see `evaluate_loss`.

    **Raises:** `InputError` for such arguments, and for a scheme in which tokens cannot stop.
    """
    for tolerance in tolerances:
        if not 0 <= tolerance < float("inf"):
            raise InputError(f"tolerances={list(tolerances)}: {tolerance} is no number from 0.")
    at_least_one("samples", samples)
    task = evaluation_task(loaded, text)
    check_part(task, part, samples)
    held_out = list(task.held_out(BATCH, samples, part))
    rows = []
    for mesh in meshes:
        if mesh.tokens is not None:
            raise InputError(f"tokens={mesh.tokens}: exits are measured on meshes in depth.")
        model = model_on(loaded.model, mesh)
        shown = model.control.num_intervals * model.discretization.steps_per_interval
        full = _figures(model, task, held_out, None, 0.0)
        rows.append({"steps": shown, "tolerance": None, "saved": 0.0, **full})
        for tolerance in tolerances:
            found = _figures(model, task, held_out, exit, tolerance)
            saved = 1 - found["evaluations"] / full["evaluations"]
            rows.append({"steps": shown, "tolerance": tolerance, "saved": saved, **found})
    check_finite(loaded, rows)
    return rows


def cheapest_exits(
    rows: Sequence[dict[str, Any]], margins: Sequence[float] = (0.005, 0.02)
) -> list[dict[str, Any]]:
    """For each margin and number of steps the row with the fewest evaluations among those
    whose loss is at most that of the full solve and the margin.

    **Arguments:**

    - `rows`: of `evaluate_exits`.
    """
    found = []
    for margin in margins:
        for full in (row for row in rows if row["tolerance"] is None):
            here = [row for row in rows if row["steps"] == full["steps"]]
            good = [row for row in here if row["loss"] <= full["loss"] + margin]
            best = min(good, key=lambda row: row["evaluations"], default=full)
            found.append({"margin": margin, **best})
    return found


def _figures(
    model: Model,
    task: AbstractTask,
    held_out: Sequence[Batch],
    exit: AbstractExit | None,
    tolerance: float,
) -> dict[str, float]:
    """The means over the held-out samples, of the evaluations too."""
    limit = jnp.asarray(tolerance)
    means = averaged(_measured(model, task.loss, exit, limit, batch) for batch in held_out)
    return {"evaluations": means.pop("evaluations"), **means, **task.figures(means["loss"])}


# The tolerance is an array, so that all of them share one program.
@eqx.filter_jit
def _measured(
    model: Model, loss: AbstractLoss, exit: AbstractExit | None, tolerance: Array, batch: Batch
) -> dict[str, Mean]:
    if exit is not None:
        exit = eqx.tree_at(lambda e: e.tolerance, exit, tolerance)
    result = loss(model.with_exit(exit), batch)
    count = len(jax.tree.leaves(batch.targets)[0])
    return {**result.figures, "evaluations": Mean(result.field_evaluations * count, count)}
