"""Losses of a trained model whose tokens stop before the end."""

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp

from ...errors import InputError
from ...integration import AbstractExit, EstimatedExit, Mesh
from ...tasks import AbstractLoss, Part
from ..folder.loading import LoadedModel
from ..steps.schedule import model_on
from .evaluation import check_finite, held_out_in_depth, measured_on


def estimated_exit(loss: AbstractLoss, **options: Any) -> EstimatedExit:
    """The exit for the outputs that a loss measures, with `options` of `EstimatedExit`;
    `InputError` where the outputs have no difference that could be estimated."""
    if loss.difference is None:
        raise InputError(
            f"The outputs that {type(loss).__name__} measures have no difference that "
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
    if wrong := [tolerance for tolerance in tolerances if not 0 <= tolerance < math.inf]:
        raise InputError(
            f"tolerances={list(tolerances)}: {wrong[0]} is not a number of at least 0."
        )
    task, held_out = held_out_in_depth(loaded, meshes, text, samples, part)
    rows = []
    for mesh in meshes:
        model = model_on(loaded.measured, mesh)
        steps = model.layers * model.steps
        full = math.nan
        for tolerance in (None, *tolerances):
            used = None
            if tolerance is not None:
                # An array, so that all tolerances share one program.
                used = eqx.tree_at(lambda e: e.tolerance, exit, jnp.asarray(tolerance))
            found = measured_on(model.with_exit(used), task, held_out)
            number = found["evaluations"]
            full = number if tolerance is None else full
            first = {"steps_to_T": steps, "tolerance": tolerance, "saved": 1 - number / full}
            rows.append({**mesh.described, **first, **found})
    check_finite(loaded, rows)
    return rows


def cheapest_exits(
    rows: Sequence[dict[str, Any]], margins: Sequence[float] = (0.005, 0.02)
) -> list[dict[str, Any]]:
    """The cheapest exits within each margin: for each margin and mesh the row of
    `evaluate_exits` with the fewest evaluations whose loss exceeds the loss of the full solve
    by at most the margin."""
    found = []
    of_mesh = ("steps_to_T", *Mesh().__dataclass_fields__)
    for margin in margins:
        for full in (row for row in rows if row["tolerance"] is None):
            here = [row for row in rows if all(row.get(x) == full.get(x) for x in of_mesh)]
            good = [row for row in here if row["loss"] <= full["loss"] + margin]
            best = min(good, key=lambda row: row["evaluations"], default=full)
            found.append({"margin": margin, **best})
    return found
