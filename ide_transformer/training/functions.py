"""Predictions of a model of functions: pictures, and rollouts in time."""

from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from ..errors import InputError
from ..models import Field, FunctionInputs, FunctionValues, Mesh, Model, OperatorModel
from ..tasks import FlowMapTask, Part, RelativeError
from .evaluation import LoadedModel, check_finite, check_part, evaluation_task
from .meshes import model_on


def draw_predictions(
    loaded: LoadedModel,
    path: str | Path,
    samples: int = 3,
    mesh: Mesh = Mesh(),
    part: Part = "test",
) -> None:
    """Draws input, truth, prediction and error of the first held-out samples of a run.

    **Arguments:**

    - `path`: the PNG file.
    - `mesh`: on which the model is solved.
    - `samples`, `part`: see `evaluate_loss`.

    **Raises:** `InputError` for a model that maps no functions.
    """
    from ..figures import plot_fields

    model, task = _operator(loaded), evaluation_task(loaded, None, mesh.tokens)
    check_part(task, part)
    batch = next(task.held_out(samples, part=part))
    if not isinstance(batch.inputs, Field):
        points = model.inputs.points_of(np.shape(batch.inputs)[1]).points
    else:
        points = batch.inputs.domain.points
    outputs = np.asarray(_outputs(model_on(loaded.model, mesh), batch.inputs))
    given = batch.inputs, batch.targets
    functions = [np.asarray(x.values if isinstance(x, Field) else x) for x in given]
    rows = [
        {"input": a, "truth": truth, "prediction": found, "error": found - truth}
        for a, truth, found in zip(*functions, outputs, strict=True)
    ]
    plot_fields(Path(path), np.asarray(points), rows[:samples])


def rollout_errors(
    loaded: LoadedModel, times: int, samples: int = 8, path: str | Path | None = None
) -> list[dict[str, Any]]:
    """The relative error of a learned flow map that is applied to its own outputs: a row for
    each multiple of its time, with the error of what does not move.

    **Arguments:**

    - `times`: how often it is applied.
    - `samples`: test functions.
    - `path`: the PNG file for the last state of three of them, if wanted.

    **Raises:** `InputError` for a run whose task is no flow map.
    """
    task = evaluation_task(loaded)
    model = _operator(loaded)
    if not isinstance(task, FlowMapTask):
        raise InputError(
            f"{loaded.path}: the outputs of {type(task).__name__} are not inputs for it; give "
            "a run of a flow map, such as data.name=navier_stokes."
        )
    truth = task.trajectory(times, samples).astype(np.float32)
    found, rows, loss = truth[0], [], RelativeError()
    for number in range(1, times + 1):
        outputs = _outputs(loaded.model, task.function(found))
        found = np.asarray(outputs).reshape(truth[0].shape)
        errors = {
            name: float(loss.measure(jnp.asarray(x), jnp.asarray(truth[number]))["loss"].value)
            for name, x in (("error", found), ("unchanged", truth[0]))
        }
        rows.append({"time": number * task.flow.time, **errors})
    check_finite(loaded, rows, "error")
    if path is not None:
        from ..figures import plot_fields

        functions = (truth[0], truth[-1], found, found - truth[-1])
        titles = ("input", "truth", "prediction", "error")
        drawn = [
            {title: x[i].ravel() for title, x in zip(titles, functions, strict=True)}
            for i in range(min(samples, 3))
        ]
        points = model.inputs.points_of((task.context,) * task.flow.dimension).points
        plot_fields(Path(path), np.asarray(points), drawn)
    return rows


def _operator(loaded: LoadedModel) -> Model[FunctionInputs, FunctionValues]:
    return loaded.expected(
        OperatorModel, "; functions are predicted by a run of an operator_model"
    )


@eqx.filter_jit
def _outputs(model: Model, inputs: Any) -> Any:
    return model(inputs)
