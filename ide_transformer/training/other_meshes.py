"""A trained model on other meshes of depth, tokens and features."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx

from ..models import Mesh
from ..tasks import AbstractTask, Part
from .evaluation import (
    LoadedModel,
    check_finite,
    evaluate_on,
    evaluation_task,
    with_data_compared,
    without_part,
)
from .meshes import Layers, model_on


def evaluate_on_meshes(
    loaded: LoadedModel,
    meshes: Sequence[Mesh],
    text: str | None = None,
    samples: int | None = None,
    part: Part = "validation",
    *,
    layers: Layers = "resampled",
) -> list[dict[str, Any]]:
    """`evaluate_loss` of a model on other meshes: a row for each, with the field evaluations of
    a solve.

    **Arguments:**

    - `meshes`: see `Mesh`. A width of an ordinary model has each of its features several times,
      see `Nodal`.
    - `layers`: where a mesh gives intervals; see `with_layers`.
    - `text`, `samples`, `part`: see `evaluate_loss`.

    **Raises:** `InputError` for a mesh that the model or its data do not have.
    """
    rows: list[dict[str, Any]] = []
    if text is None:
        loaded = with_data_compared(loaded)
    models = [model_on(loaded.model, mesh, layers) for mesh in meshes]
    tasks: dict[Any, AbstractTask] = {}
    for mesh, model in zip(meshes, models, strict=True):
        if mesh.tokens not in tasks:
            tasks[mesh.tokens] = evaluation_task(loaded, text, mesh.tokens)
        task = tasks[mesh.tokens]
        batch = next(task.held_out(1, part=part), None)
        if batch is None:
            raise without_part(task, part)
        evaluations = eqx.filter_jit(task.loss)(model, batch).field_evaluations
        found = evaluate_on(model, task, samples, part)
        rows.append({**mesh.described, "evaluations": float(evaluations), **found})
    check_finite(loaded, rows)
    return rows
