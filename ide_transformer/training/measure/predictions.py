"""Draws predictions of trained models."""

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
from .evaluation import evaluation_task, part_to_measure


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
    batch = next(task.held_out(samples, part=part_to_measure(task, part)))
    inputs = batch.inputs.inputs if isinstance(batch.inputs, Timed) else batch.inputs
    points = model.inputs.with_domain_of(batch.inputs).domain.points
    outputs = np.asarray(compiled_outputs(model_on(loaded.measured, mesh), batch.inputs))
    # A task of several steps has a list; its first item is drawn.
    truth = batch.targets[0] if isinstance(batch.targets, list) else batch.targets
    arrays = [np.asarray(x.values if isinstance(x, Field) else x) for x in (inputs, truth)]
    draw_functions(path, points, samples, arrays[1], outputs, input=arrays[0])


def draw_functions(
    path: str | Path,
    points: Any,
    samples: int,
    truth: np.ndarray,
    prediction: np.ndarray,
    axes: tuple[str, str] = ("", ""),
    **more: np.ndarray,
) -> None:
    """Draws truth, predictions and more functions, each `[samples, …]`: a row for each channel
    of the first samples. Functions with another number of channels appear whole in each row.
    Samples may have points of their own, `[samples, tokens, dimension]`; padding repeats the
    first."""
    from ...figures import plot_fields

    points = np.asarray(points)
    shape = len(truth), points.shape[-2], -1
    functions = {**more, "truth": truth, "prediction": prediction}
    functions = {name: values.reshape(shape) for name, values in functions.items()}
    error = functions["prediction"] - functions["truth"]
    functions["error"] = error
    rows = {}
    points_of_rows = []
    for sample, channel in np.ndindex(min(samples, len(truth)), error.shape[2]):
        name = f"sample {sample + 1}"
        if error.shape[2] > 1:
            name += f", channel {channel + 1}"
        rows[name] = {}
        is_real = slice(None)
        if points.ndim > 2:
            is_real = real_points(points)[sample]
            points_of_rows.append(points[sample, is_real])
        for title, values in functions.items():
            if values.shape == error.shape:
                rows[name][title] = values[sample, is_real, channel]
            else:
                for index, y in enumerate(values[sample].T, 1):
                    rows[name][f"{title}, channel {index}"] = y[is_real]
    plot_fields(Path(path), points_of_rows or points, rows, axes=axes)


def operator_model(loaded: LoadedModel) -> Model[models.FunctionInputs, models.FunctionValues]:
    """The model, if it maps functions to functions."""
    return loaded.require(models.OperatorModel)
