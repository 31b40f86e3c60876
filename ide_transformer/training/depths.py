"""A trained model evaluated at other resolutions: on other meshes in depth, up to other depths,
for other numbers of tokens and of features."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx

from ..depth import keep_layers
from ..errors import InputError
from ..models import AbstractModel, functional
from ..tasks import AbstractTask, Part
from .evaluation import (
    LoadedModel,
    check_finite,
    evaluate_on,
    evaluation_task,
    with_data_compared,
    without_part,
)


def evaluate_at_depths(
    loaded: LoadedModel,
    steps: Sequence[int],
    text: str | None = None,
    samples: int | None = None,
    context: int | None = None,
    part: Part = "validation",
    *,
    mesh: str = "resampled",
) -> list[dict[str, Any]]:
    """`evaluate_loss` of a model whose equation is solved on other meshes in depth: a row for
    each number of steps, with the field evaluations of a solve.

    **Arguments:**

    - `steps`: over all of `[0, T]`, one in each interval; see `AbstractModel.at_depth`.
    - `mesh`: "resampled"; or so many of the layers of the model, each with its own step,
      "spread" evenly or the "first" ones: what a model that was trained with `LayerDrop`, or to
      be read out after each layer, is meant for.
    - `text`, `samples`, `context`, `part`: see `evaluate_loss`.

    **Raises:** `InputError` for steps below 1, for more than a model has layers to keep, or a
    control that has no such mesh.
    """
    if mesh not in _MESHES:
        raise InputError(f"mesh={mesh!r}: write one of {', '.join(_MESHES)}.")
    models = [on_mesh(loaded.model, number, _MESHES[mesh]) for number in steps]
    task = evaluation_task(loaded, text, context)
    return _rows(loaded, "steps", steps, models, task, samples, part)


def evaluate_at_horizons(
    loaded: LoadedModel,
    horizons: Sequence[float],
    text: str | None = None,
    samples: int | None = None,
    context: int | None = None,
    part: Part = "validation",
) -> list[dict[str, Any]]:
    """`evaluate_loss` of a model of tied weights whose equation is solved up to other depths,
    in steps of the same size: a row for each horizon, with the field evaluations of a solve.

    **Arguments:**

    - `horizons`: in layers; see `Mesh`.
    - `text`, `samples`, `context`, `part`: see `evaluate_loss`.

    **Raises:** `InputError` where the model cannot be solved up to there.
    """
    models = [loaded.model.with_horizon(horizon) for horizon in horizons]
    task = evaluation_task(loaded, text, context)
    return _rows(loaded, "horizon", horizons, models, task, samples, part)


def evaluate_at_contexts(
    loaded: LoadedModel,
    contexts: Sequence[int],
    text: str | None = None,
    samples: int | None = None,
    part: Part = "validation",
) -> list[dict[str, Any]]:
    """`evaluate_loss` on windows of other lengths, or of functions on other numbers of points:
    a row for each, with the field evaluations of a solve.

    **Arguments:**

    - `contexts`: tokens of a sample.
    - `text`, `samples`, `part`: see `evaluate_loss`.

    **Raises:** `InputError` where the model cannot be evaluated on so many.
    """
    rows = []
    if text is None:
        loaded = with_data_compared(loaded)
    for context in contexts:
        task = evaluation_task(loaded, text, context)
        rows += _rows(loaded, "context", [context], [loaded.model], task, samples, part)
    return rows


def evaluate_at_widths(
    loaded: LoadedModel,
    widths: Sequence[int],
    text: str | None = None,
    samples: int | None = None,
    context: int | None = None,
    part: Part = "validation",
) -> list[dict[str, Any]]:
    """`evaluate_loss` of a model whose weights are functions of the features, at other numbers
    of them: a row for each, with the field evaluations of a solve. An ordinary model has each
    feature several times, see `Nodal`.

    **Arguments:**

    - `widths`: the points of Ω_y, of a state.
    - `text`, `samples`, `context`, `part`: see `evaluate_loss`.

    **Raises:** `InputError` where its functions cannot be told apart at so many points.
    """
    models = [functional(loaded.model).at_width(width) for width in widths]
    task = evaluation_task(loaded, text, context)
    return _rows(loaded, "width", widths, models, task, samples, part)


def _rows(
    loaded: LoadedModel,
    name: str,
    numbers: Sequence[int] | Sequence[float],
    models: Sequence[AbstractModel],
    task: AbstractTask,
    samples: int | None,
    part: Part,
) -> list[dict[str, Any]]:
    """The evaluation of each of some models, with its number under `name`."""
    batch = next(task.held_out(1, part=part), None)
    if batch is None:
        raise without_part(task, part)
    rows = []
    for number, model in zip(numbers, models, strict=True):
        evaluations = eqx.filter_jit(task.loss)(model, batch).field_evaluations
        found = evaluate_on(model, task, samples, part)
        rows.append({name: number, "evaluations": float(evaluations), **found})
    check_finite(loaded, rows)
    return rows


def on_mesh(
    model: AbstractModel,
    steps: int,
    changed: Callable[[AbstractModel, int], AbstractModel] = AbstractModel.at_depth,
) -> AbstractModel:
    """The model solved with so many steps in depth, one in each interval."""

    def change(model: AbstractModel) -> AbstractModel:
        model = changed(model, steps)
        return model.with_solver(model.discretization.solver)

    return model.each_stage(change)


def _spread_layers(model: AbstractModel, number: int) -> AbstractModel:
    _check_layers(model, number)
    return keep_layers(
        model, [i * model.control.num_intervals // number for i in range(number)]
    )


def _first_layers(model: AbstractModel, number: int) -> AbstractModel:
    _check_layers(model, number)
    return keep_layers(model, range(number))


def _check_layers(model: AbstractModel, number: int) -> None:
    layers = model.control.num_intervals
    if not 1 <= number <= layers:
        raise InputError(f"steps={number}: the model has {layers} layers to keep, or fewer.")


_MESHES: dict[str, Callable[[AbstractModel, int], AbstractModel]] = {
    "resampled": AbstractModel.at_depth,
    "spread": _spread_layers,
    "first": _first_layers,
}
