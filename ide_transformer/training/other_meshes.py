"""A trained model on other meshes of depth, tokens and features."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import equinox as eqx

from ..depth import keep_layers
from ..errors import InputError
from ..models import AbstractModel, Mesh, functional
from ..tasks import AbstractTask, Part
from .evaluation import (
    LoadedModel,
    check_finite,
    evaluate_on,
    evaluation_task,
    with_data_compared,
    without_part,
)


# How a model comes to fewer intervals: θ(t) is resampled, or some of its layers are kept.
Layers = Literal["resampled", "spread", "first"]


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


def model_on(model: AbstractModel, mesh: Mesh, layers: Layers = "resampled") -> AbstractModel:
    """`model.on(mesh)`; where the mesh gives a width, that of its weights as functions of the
    features, and where some of its `layers` are kept, that of these."""
    if layers != "resampled":
        number = mesh.intervals
        if number is None:
            raise InputError(
                f"layers={layers}: it says which layers a mesh keeps; give intervals."
            )
        model = model.each_stage(lambda stage: with_layers(stage, number, layers))
        mesh = dataclasses.replace(mesh, intervals=None)
    return (model if mesh.width is None else functional(model)).on(mesh)


def with_layers(
    model: AbstractModel, number: int, layers: Literal["spread", "first"]
) -> AbstractModel:
    """The model with so many of its layers, each with its own step: "spread" evenly or the
    "first" ones, for a model that was trained with `LayerDrop`, or to be read out after each.

    **Raises:** `InputError` for more than it has.
    """
    own = model.control.num_intervals
    if number > own:
        raise InputError(f"intervals={number}: the model has {own} layers to keep, or fewer.")
    kept = {"spread": [i * own // number for i in range(number)], "first": range(number)}
    return keep_layers(model, kept[layers])
