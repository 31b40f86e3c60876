"""Predictions of trained models, drawn."""

from pathlib import Path
from typing import Any

import numpy as np

from ... import models, tasks
from ...errors import InputError
from ...integration import Mesh
from ...models import Field, Model, Timed, compiled_outputs
from ...tasks.function_data import real_points
from ..folder.loading import LoadedModel
from ..steps.schedule import model_on
from .evaluation import checked_part, evaluation_task


# Texts translated at once.
_BATCH = 32


def draw_predictions(
    loaded: LoadedModel,
    path: str | Path,
    samples: int = 3,
    mesh: Mesh = Mesh(),
    part: tasks.Part = "test",
) -> None:
    """Draws input, truth, prediction and error of the first held-out samples of a run.

    **Arguments:**

    - `path`: the PNG file.
    - `mesh`: the mesh on which the model is solved.
    - `samples`, `part`: see `evaluate_loss`.

    **Raises:** `InputError` if the model does not map functions to functions.
    """
    model = operator_model(loaded)
    task = evaluation_task(loaded, None, mesh.tokens)
    if task.loss.classifies:
        raise InputError(f"{loaded.path}: its outputs are logits of classes, not functions.")
    batch = next(task.held_out(samples, part=checked_part(task, part)))
    given = batch.inputs.inputs if isinstance(batch.inputs, Timed) else batch.inputs
    points = model.inputs.with_domain_of(batch.inputs).domain.points
    outputs = np.asarray(compiled_outputs(model_on(loaded.measured, mesh), batch.inputs))
    # A task of several steps has a list; its first item is drawn.
    first = batch.targets[0] if isinstance(batch.targets, list) else batch.targets
    pair = given, first
    inputs, truth = (np.asarray(x.values if isinstance(x, Field) else x) for x in pair)
    draw_functions(path, points, samples, truth, outputs, input=inputs)


def draw_functions(
    path: str | Path,
    points: Any,
    samples: int,
    truth: np.ndarray,
    found: np.ndarray,
    axes: tuple[str, str] = ("", ""),
    **others: np.ndarray,
) -> None:
    """Draws truth, predictions and others, each `[samples, …]`: a row for each channel of the
    first samples. Others with another number of channels appear whole in each row. Samples may
    have points of their own, `[samples, tokens, dimension]`; padding repeats the first."""
    from ...figures import plot_fields

    given = {**others, "truth": truth, "prediction": found}
    points = np.asarray(points)
    shape = len(truth), points.shape[-2], -1
    shown = {name: functions.reshape(shape) for name, functions in given.items()}
    shown["error"] = shown["prediction"] - shown["truth"]
    rows = {}
    places = []
    for sample, channel in np.ndindex(min(samples, len(truth)), shown["error"].shape[2]):
        name = f"sample {sample + 1}"
        if shown["error"].shape[2] > 1:
            name += f", channel {channel + 1}"
        rows[name] = {}
        there = slice(None)
        if points.ndim > 2:
            there = real_points(points)[sample]
            places.append(points[sample, there])
        for title, x in shown.items():
            if x.shape == shown["error"].shape:
                rows[name][title] = x[sample, there, channel]
            else:
                each = enumerate(x[sample].T, 1)
                rows[name] |= {f"{title}, channel {number}": y[there] for number, y in each}
    plot_fields(Path(path), places or points, rows, axes=axes)


def operator_model(loaded: LoadedModel) -> Model[models.FunctionInputs, models.FunctionValues]:
    other = "; functions are predicted by a run of an operator_model; evaluate measures others"
    return loaded.expected(models.OperatorModel, other)
