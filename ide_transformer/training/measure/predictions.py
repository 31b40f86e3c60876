"""Predictions of trained models: drawn functions and roll-outs in time."""

from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from ... import models, tasks
from ...arguments import PositiveInt, checked
from ...errors import InputError
from ...integration import Mesh
from ...models import Field, Model
from ..folder.loading import LoadedModel
from ..steps.schedule import model_on
from .evaluation import check_finite, checked_part, evaluation_task


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
    model = _operator(loaded)
    task = evaluation_task(loaded, None, mesh.tokens)
    if task.loss.classifies:
        raise InputError(f"{loaded.path}: its outputs are logits of classes, not functions.")
    batch = next(task.held_out(samples, part=checked_part(task, part)))
    if not isinstance(batch.inputs, Field):
        axes = np.shape(batch.inputs)[1 : 1 + model.inputs.dimension]
        points = model.inputs.points_of(axes).points
    else:
        points = batch.inputs.domain.points
    outputs = np.asarray(_outputs(model_on(loaded.measured, mesh), batch.inputs))
    # A task of several steps has a list; its first item is drawn.
    first = batch.targets[0] if isinstance(batch.targets, list) else batch.targets
    given = batch.inputs, first
    inputs, truth = (np.asarray(x.values if isinstance(x, Field) else x) for x in given)
    _draw(path, points, samples, truth, outputs, input=inputs)


@checked
def rollout_errors(
    loaded: LoadedModel,
    times: PositiveInt,
    samples: PositiveInt = 8,
    path: str | Path | None = None,
    mesh: Mesh = Mesh(),
) -> list[dict[str, Any]]:
    """The errors of a learned flow map that is applied to its own outputs. A row for each
    application has

    - `time`: the time of the flow.
    - `error`: the relative error, mean over samples.
    - `spectrum`: the relative error of the energy of the waves, `Σ_k |E_k - E'_k| / Σ_k E'_k`,
      where `E_k` is the mean over samples of `|û_k|²`. In a chaotic flow, where states drift
      apart, it says whether the outputs still look like states of the flow.
    - `unchanged`: the relative error of a state that does not move.
    - `samples`: the number of test functions.

    **Arguments:**

    - `times`: how often the map is applied.
    - `samples`: the most test functions.
    - `path`: a PNG file for three of them: on a line over time, in the plane at the end.
      Default: none.
    - `mesh`: the mesh on which the model is solved, for example with other points.

    **Raises:** `InputError` for a run whose task is no flow map.
    """
    space = _operator(loaded).inputs
    model = model_on(loaded.measured, mesh)
    task = evaluation_task(loaded, None, mesh.tokens)
    if not isinstance(task, tasks.FlowMapTask):
        what = f"{loaded.path}: {type(task).__name__} is no flow map"
        raise InputError(f"{what}; give a run of one, such as data.name=navier_stokes.")
    samples = min(samples, task.held_out_samples)
    truth = task.trajectory(times, samples).astype(np.float32)
    found = [truth[0]]
    for _ in range(times):
        outputs = _outputs(model, task.function(found[-1]))
        found.append(np.asarray(outputs).reshape(truth[0].shape))
    rows = []
    relative = tasks.RelativeError()
    for number, (u, exact) in enumerate(zip(found[1:], truth[1:], strict=True), 1):
        error, unchanged = (
            float(relative.measure(jnp.asarray(x), jnp.asarray(exact))["loss"].value)
            for x in (u, truth[0])
        )
        spectrum = _spectral(u, exact, task.flow.dimension)
        measured = {"error": error, "spectrum": spectrum, "unchanged": unchanged}
        time = {"time": number * task.flow.time}
        rows.append({**mesh.described, **time, **measured, "samples": samples})
    check_finite(loaded, rows, "error")
    if path is not None:
        points = space.points_of((task.context,) * task.flow.dimension).points
        if task.flow.dimension > 1:
            _draw(path, points, 3, truth[-1], found[-1], input=truth[0])
        else:
            x = np.asarray(points)[:, 0]
            both = np.meshgrid(np.linspace(0.0, np.ptp(x), len(truth)), x, indexing="ij")
            truth, reached = (np.moveaxis(x, 1, 0) for x in (truth, np.stack(found)))
            _draw(path, np.stack(both, -1).reshape(-1, 2), 3, truth, reached, ("time", "x"))
    return rows


def _spectral(u: np.ndarray, exact: np.ndarray, dimension: int) -> float:
    """The relative error of the energy of the waves; see `rollout_errors`."""
    axes = tuple(range(1, 1 + dimension))
    energy, true = (np.mean(np.abs(np.fft.fftn(x, axes=axes)) ** 2, 0) for x in (u, exact))
    return float(np.sum(np.abs(energy - true)) / np.sum(true))


def _draw(
    path: str | Path,
    points: Any,
    samples: int,
    truth: np.ndarray,
    found: np.ndarray,
    axes: tuple[str, str] = ("", ""),
    **others: np.ndarray,
) -> None:
    """Draws truth, predictions and others, each `[samples, …]`, for the first samples: a row
    for each channel. Others with another number of channels appear whole in each row. Samples
    may have points of their own, `[samples, tokens, dimension]`; padding repeats the first."""
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
            own = points[sample]
            there = np.append(True, (own[1:] != own[0]).any(axis=1))
            places.append(own[there])
        for title, x in shown.items():
            if x.shape == shown["error"].shape:
                rows[name][title] = x[sample, there, channel]
            else:
                each = enumerate(x[sample].T, 1)
                rows[name] |= {f"{title}, channel {number}": y[there] for number, y in each}
    plot_fields(Path(path), places or points, rows, axes=axes)


def _operator(loaded: LoadedModel) -> Model[models.FunctionInputs, models.FunctionValues]:
    return loaded.expected(
        models.OperatorModel,
        "; functions are predicted by a run of an operator_model, and evaluate measures others",
    )


@eqx.filter_jit
def _outputs(model: Model, inputs: Any) -> Any:
    return model(inputs)
