"""Losses of a trained model on held-out data, also on other meshes and with early exits."""

import math
from collections.abc import Sequence
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp

from ... import tasks
from ...errors import InputError, at
from ...integration import AbstractExit, EstimatedExit, Mesh
from ...models import FunctionInputs, LanguageModel, Model
from ...tasks import AbstractLoss, AbstractTask, Batch, Mean, Part
from ...tasks.language import on_same_tokens
from ..configuration.config import Config
from ..configuration.names import parameters_of
from ..folder.loading import LoadedModel, hold_out_all
from ..folder.run_folder import RunFolder, changed_data, same_tokenizer
from ..steps.build import build_task, task_class
from ..steps.schedule import model_on
from ..steps.step import better_solve, require_samples


_BATCH = 16


def run_task(
    run: RunFolder, config: Config | None = None, *, named: bool = False
) -> AbstractTask:
    """The task of a run, with its tokenizer.

    **Arguments:**

    - `config`: the configuration of a loaded model. Default: the configuration of the run.
    - `named`: whether the user chose other data.

    **Raises:** `InputError` if the data changed since the run began, and for unknown tokens.
    """
    run_config = run.load_config()
    config = run_config if config is None else config
    tokenizer = run.load_tokenizer()
    if named:
        task = build_task(config, tokenizer)
        if same_tokenizer(run, task):
            return task
        raise InputError(
            f"data.path={config.data.path} has other tokens than {run.path}; use data in the "
            f"tokens of {run.tokenizer}."
        )
    with at(f"{run.path}: its data are not as they were"):
        task = build_task(run_config, tokenizer)
    if changed := changed_data(run, task, task.fingerprint()):
        data = run_config.data
        override = f"data.name={data.name}" if data.path is None else f"data.path={data.path}"
        raise InputError(
            f"{run.path}: {' and '.join(changed)} changed since. Restore them, or pass "
            f"{override} to use them as they are."
        )
    return task if config.model == run_config.model else build_task(config, tokenizer)


def evaluation_task(
    loaded: LoadedModel,
    text: str | None = None,
    tokens: int | tuple[int, int] | None = None,
    task: AbstractTask | None = None,
) -> AbstractTask:
    """The task on which a model is evaluated.

    **Arguments:**

    - `text`, `task`: see `evaluate_loss`.
    - `tokens`: of a sample. Default: as trained; for a checkpoint its context, up to 512.

    **Raises:** `InputError` if the data have no samples of this size.
    """
    run = loaded.run
    config = loaded.config
    if text is not None or run is None or config is None:
        model = loaded.require(LanguageModel)
        context = min(model.inputs.context, 512) if tokens is None else cast(int, tokens)
        fraction = 0.1 if text is None else 1.0
        text = tasks.shakespeare() if text is None else text
        tokenizer = loaded.tokenizer
        return tasks.LanguageTask(text, context, tokenizer=tokenizer, validation=fraction)
    if loaded.foreign:
        config = hold_out_all(config)
    task = task or run_task(run, config, named=loaded.named)
    if tokens is not None:
        rebuilt = None
        if "context" in parameters_of(task_class(config)):
            rebuilt = build_task(config.changed("model", context=tokens), run.load_tokenizer())
        # In the plane the context is not the number of tokens.
        if rebuilt is None or rebuilt.tokens_per_sample == task.tokens_per_sample != tokens:
            with at(f"tokens={tokens}"):
                rebuilt = task.on(Mesh(tokens=tokens))
        task = rebuilt
    if not isinstance(task, tasks.AbstractTrajectories):
        return task
    # A model may have learned another Δt.
    inputs = loaded.model.inputs
    return task.for_duration(inputs.duration) if isinstance(inputs, FunctionInputs) else task


def evaluate_loss(
    loaded: LoadedModel,
    text: str | None = None,
    samples: int | None = None,
    part: Part = "validation",
    task: AbstractTask | None = None,
) -> dict[str, Any]:
    """The loss on held-out data, with other figures of the task such as the accuracy; for texts
    also the perplexity `exp(loss)` and the bits per byte. `samples` is the number of samples
    (windows of a text), `targets` the number of counted targets (tokens of a text).

    **Arguments:**

    - `text`: a text to predict. Default: the data of a run; else the last tenth of Shakespeare.
    - `samples`: this many samples, evenly spread. Default: all.
    - `part`: the part of the data of a run. A text, or another file, is measured whole.
    - `task`: the task of the run, if it is already made.

    **Raises:** `InputError` for data without this part or that have changed; for a loss of NaN.
    """
    task = evaluation_task(loaded, text, task=task)
    figures = evaluate_on(loaded.measured, task, samples, part)
    check_finite(loaded, [figures])
    return figures


def evaluate_on(
    model: Model, task: AbstractTask, samples: int | None, part: Part = "validation"
) -> dict[str, Any]:
    """`evaluate_loss` for a model and a task."""
    figures = _measure(model, task, samples, part)
    del figures["evaluations"]
    return figures


def _measure(
    model: Model, task: AbstractTask, samples: int | None, part: Part
) -> dict[str, Any]:
    """The figures of a model, and the mean field `evaluations` of a solve."""
    counts = {"samples": 0, "targets": 0}

    def measure_batch(batch: Batch) -> dict[str, Mean]:
        result = eqx.filter_jit(task.loss)(model, batch)
        loss = result.figures["loss"]
        size = len(jax.tree.leaves(batch.targets)[0])
        counts["samples"] += size
        counts["targets"] += int(loss.count)
        evaluations = Mean(result.field_evaluations * size, size)
        return {"evaluations": evaluations, **result.figures, **task.further_means(batch, loss)}

    batches = task.held_out(_BATCH, samples, part_to_measure(task, part))
    means = task.loss.figures(require_samples(tasks.averaged(map(measure_batch, batches))))
    return {**means, **task.figures(means["loss"]), **counts}


def evaluate_models(
    models: Sequence[LoadedModel],
    text: str | None = None,
    samples: int | None = None,
    part: Part = "validation",
) -> list[dict[str, Any]]:
    """`evaluate_loss` of several models. A row for each also has the `tokens` of a sample, the
    checksum of its data as `data`, and the `part` in words. On one text all models predict the
    same tokens, each in windows of its own context."""
    all_tasks = on_same_tokens([evaluation_task(loaded, text) for loaded in models])
    checksums = [task.fingerprint() for task in all_tasks]
    texts = all(isinstance(task, tasks.AbstractNextToken) for task in all_tasks)
    if samples is not None and texts and len(set(checksums)) > 1:
        paths = " and ".join(str(loaded.path) for loaded in models)
        raise InputError(
            f"samples={samples}: {paths} would read different places of their texts; measure "
            "all."
        )
    rows = []
    for loaded, task, checksum in zip(models, all_tasks, checksums, strict=True):
        figures = evaluate_on(loaded.measured, task, samples, part)
        check_finite(loaded, [figures])
        row = {"data": checksum, "part": describe_part(task, part)}
        rows.append({**row, "tokens": task.tokens_per_sample, **figures})
    return rows


def evaluate_on_meshes(
    loaded: LoadedModel,
    meshes: Sequence[Mesh],
    text: str | None = None,
    samples: int | None = None,
    part: Part = "validation",
    task: AbstractTask | None = None,
) -> list[dict[str, Any]]:
    """`evaluate_loss` of a model on other meshes, which all measure the same tokens of a text.
    A row for each also has `evaluations`, the mean field evaluations of a solve.

    **Arguments:**

    - `meshes`: see `Mesh`. A width repeats the features of an ordinary model, see `Nodal`.
    - `text`, `samples`, `part`, `task`: see `evaluate_loss`.

    **Raises:** `InputError` for a mesh that the model or its data cannot have.
    """
    models = [model_on(loaded.measured, mesh) for mesh in meshes]
    # The data of a run are checked against its fingerprints only once.
    if task is None and text is None and loaded.run is not None:
        task = evaluation_task(loaded)
    sizes = [*dict.fromkeys(mesh.tokens for mesh in meshes)]
    all_tasks = [evaluation_task(loaded, text, tokens, task) for tokens in sizes]
    task_of = dict(zip(sizes, on_same_tokens(all_tasks), strict=True))
    rows = [
        {**mesh.described, **_measure(model, task_of[mesh.tokens], samples, part)}
        for mesh, model in zip(meshes, models, strict=True)
    ]
    check_finite(loaded, rows)
    return rows


def estimated_exit(loss: AbstractLoss, **options: Any) -> EstimatedExit:
    """The exit for the outputs that a loss measures, with `options` of `EstimatedExit`. Raises
    `InputError` if the loss defines no `difference`."""
    if loss.difference is None:
        raise InputError(f"{type(loss).__name__} has no difference for exits; define it.")
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
    """`evaluate_loss` of a model whose tokens may stop early. For each mesh, a row of the full
    solve, without a tolerance, then a row for each tolerance. `evaluations` is the mean over
    all tokens, `saved` the fraction of the full solve's evaluations that are saved.

    **Arguments:**

    - `exit`: the exit; its tolerance is replaced.
    - `tolerances`: 0 or more.
    - `meshes`: meshes in depth. Default: the mesh of the model.
    - `text`, `samples`, `part`: see `evaluate_loss`.

    **Raises:** `InputError` for other meshes, and for a scheme in which tokens cannot stop.
    """
    if wrong := [mesh.tokens for mesh in meshes if mesh.tokens is not None]:
        raise InputError(f"tokens={wrong[0]}: exits are measured on meshes in depth.")
    task = evaluation_task(loaded, text)
    rows = []
    for mesh in meshes:
        model = model_on(loaded.measured, mesh)
        row = {**mesh.described, "steps_to_T": model.layers * model.steps}
        figures = _measure(model.with_exit(None), task, samples, part)
        full = figures["evaluations"]
        rows.append({**row, "tolerance": None, "saved": 0.0, **figures})
        for tolerance in tolerances:
            # An array, so that all tolerances share one program.
            early = eqx.tree_at(lambda e: e.tolerance, exit, jnp.asarray(tolerance))
            figures = _measure(model.with_exit(early), task, samples, part)
            saved = 1 - figures["evaluations"] / full
            rows.append({**row, "tolerance": tolerance, "saved": saved, **figures})
    check_finite(loaded, rows)
    return rows


def cheapest_exits(
    rows: Sequence[dict[str, Any]], margins: Sequence[float] = (0.005, 0.02)
) -> list[dict[str, Any]]:
    """For each margin and mesh, the row of `evaluate_exits` with the fewest evaluations whose
    loss exceeds the loss of the full solve by at most the margin."""
    cheapest = []
    of_mesh = ("steps_to_T", *Mesh().__dataclass_fields__)
    for margin in margins:
        for full in (row for row in rows if row["tolerance"] is None):
            same_mesh = [row for row in rows if all(row.get(x) == full.get(x) for x in of_mesh)]
            good = [row for row in same_mesh if row["loss"] <= full["loss"] + margin]
            best = min(good, key=lambda row: row["evaluations"], default=full)
            cheapest.append({"margin": margin, **best})
    return cheapest


def check_finite(loaded: LoadedModel, rows: Sequence[dict[str, Any]]) -> None:
    """Raises `InputError` if no row has a finite loss."""
    if not any(math.isfinite(row["loss"]) for row in rows):
        raise InputError(
            f"{loaded.path}: the loss is {rows[0]['loss']}: the outputs are not finite. Use "
            f"{better_solve(loaded.model)}, or other data."
        )


def part_to_measure(task: AbstractTask, part: Part) -> Part:
    """The part, or all data if they are not divided. Raises `InputError` if there is none."""
    if task.holds_out_all and part not in task.parts:
        return "validation"
    if part not in task.parts:
        raise InputError(
            f"part={part}: these data have only {' and '.join(task.parts)}; a text trained "
            "with data.test=0.1 has a test part."
        )
    return part


def describe_part(task: AbstractTask, part: Part) -> str:
    """The measured part of a task, in words."""
    is_whole = task.holds_out_all and task.parts == ("validation",)
    return "all of it" if is_whole else f"{part} part"
