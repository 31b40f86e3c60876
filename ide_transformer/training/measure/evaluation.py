"""Losses of a trained model on held-out data, also on other meshes."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, cast

import equinox as eqx
import jax

from ... import tasks
from ...errors import InputError, at
from ...integration import Mesh
from ...models import LanguageModel, Model
from ...tasks import AbstractTask, Batch, Mean, Part
from ...tasks.language import on_same_tokens
from ..configuration.config import Config
from ..configuration.reader import parameters_of
from ..folder.loading import LoadedModel, held_out_whole
from ..folder.run_folder import RunFolder, changed_data, same_tokenizer
from ..steps.build import build_task, task_class
from ..steps.schedule import Layers, model_on
from ..steps.step import better_solve, require_samples


_BATCH = 16


def run_task(
    run: RunFolder, config: Config | None = None, *, named: bool = False, trust: bool = False
) -> AbstractTask:
    """The data of a run in its own tokens.

    **Arguments:**

    - `config`: that of the run, or one with another context.
    - `trust`: see `load_run`; a `config` is that of a model that was loaded.
    - `named`: whether these are other data, which the user has named.

    **Raises:** `InputError` where the data are not those with which the run began, as far as it
    recorded them, or have a token that its tokenizer lacks.
    """
    own = run.load_config(trust if config is None else config)
    config = own if config is None else config
    tokenizer = run.known_tokenizer
    if named:
        task = build_task(config, tokenizer)
        if not same_tokenizer(run, task):
            raise InputError(
                f"data.path={config.data.path}: the tokens of these data are not those of "
                f"{run.path}; give data in those of {run.tokenizer}."
            )
        return task
    with at(f"{run.path}: its data are not as they were"):
        task = build_task(own, tokenizer)
    if changed := changed_data(run, task, task.fingerprint()):
        path = own.data.path
        name = f"data.name={own.data.name}" if path is None else f"data.path={path}"
        raise InputError(
            f"{run.path} began otherwise; {' and '.join(changed)} changed since. Restore what "
            f"it began with, or give {name} to take them as they are now, in its tokens."
        )
    return task if config.model == own.model else build_task(config, tokenizer)


def evaluation_task(
    loaded: LoadedModel,
    text: str | None = None,
    tokens: int | tuple[int, int] | None = None,
    task: AbstractTask | None = None,
) -> AbstractTask:
    """The task on which a model is evaluated; see `evaluate_loss`.

    **Arguments:**

    - `tokens`: of a sample; by default those of a run, and of a checkpoint the most that it can
      take, up to 512.
    - `task`: that of a run, where it was made before.

    **Raises:** `InputError` for data that have no such samples.
    """
    run = loaded.run
    config = loaded.config
    if config is not None and loaded.foreign:
        config = held_out_whole(config)
    if text is None and run is not None and config is not None:
        task = task or run_task(run, config, named=loaded.named)
        return task if tokens is None else _with_tokens(task, tokens, config, run)
    model = loaded.expected(LanguageModel, ", which predicts no text")
    context = min(model.inputs.context, 512) if tokens is None else cast(int, tokens)
    whole, fraction = (tasks.shakespeare(), 0.1) if text is None else (text, 1.0)
    return tasks.LanguageTask(whole, context, tokenizer=loaded.tokenizer, validation=fraction)


def _with_tokens(
    task: AbstractTask, tokens: int | tuple[int, int], config: Config, run: RunFolder
) -> AbstractTask:
    """The task of a configuration in samples of so many tokens: made again where its context
    decides them, and else by the task itself."""
    if "context" in parameters_of(task_class(config)):
        made = build_task(config.changed("model", context=tokens), run.known_tokenizer)
        # In the plane it is not their number, nor where it is the most that a model sees.
        if made.tokens_per_sample == tokens or made.tokens_per_sample != task.tokens_per_sample:
            return made
    with at(f"tokens={tokens}"):
        return task.on(Mesh(tokens=tokens))


def evaluate_loss(
    loaded: LoadedModel,
    text: str | None = None,
    samples: int | None = None,
    part: Part = "validation",
    task: AbstractTask | None = None,
) -> dict[str, Any]:
    """The loss on held-out data and what else it measures, such as the accuracy; for texts also
    the perplexity `exp(loss)` and the bits per byte of the text; and the number of samples
    (windows of a text). `targets` is the number of targets that are counted, of a text its
    tokens.

    **Arguments:**

    - `text`: it is predicted in windows of the context, what is left over at its end is not;
      `None` for the data of a run, and for the last tenth of Shakespeare for a checkpoint.
    - `samples`: so many windows or images, evenly spread; `None` for all.
    - `part`: of the data of a run. A text, and a file that is not the one of the run, have no
      parts: all of their samples are taken.
    - `task`: that of a run, where it was made before.

    **Raises:** `InputError` for data that have no such part, that are not those of the run any
    more, or on which the loss is not finite.
    """
    task = evaluation_task(loaded, text, task=task)
    found = evaluate_on(loaded.measured, task, samples, part)
    check_finite(loaded, [found])
    return found


def evaluate_on(
    model: Model, task: AbstractTask, samples: int | None, part: Part = "validation"
) -> dict[str, Any]:
    """`evaluate_loss` on a task that is there already."""
    part = checked_part(task, part, samples)
    found = measured_on(model, task, task.held_out(_BATCH, samples, part))
    del found["evaluations"]
    return found


def measured_on(model: Model, task: AbstractTask, batches: Iterable[Batch]) -> dict[str, Any]:
    """The figures of a model on batches, with the field evaluations of a solve, the mean over
    samples, and with the numbers of samples and of targets that are counted."""
    samples = targets = 0

    def measured(batch: Batch) -> dict[str, Mean]:
        nonlocal samples, targets
        result = eqx.filter_jit(task.loss)(model, batch)
        loss = result.figures["loss"]
        count = len(jax.tree.leaves(batch.targets)[0])
        samples = samples + count
        targets = targets + int(loss.count)
        evaluations = Mean(result.field_evaluations * count, count)
        return {"evaluations": evaluations, **result.figures, **task.further_means(batch, loss)}

    means = require_samples(tasks.averaged(map(measured, batches)))
    counts = {"samples": samples, "targets": targets}
    return {**means, **task.figures(means["loss"]), **counts}


def evaluate_models(
    models: Sequence[LoadedModel],
    text: str | None = None,
    samples: int | None = None,
    part: Part = "validation",
) -> list[dict[str, Any]]:
    """`evaluate_loss` of several models: a row for each, with the `tokens` of a sample, the
    checksum of its data as `data`, and the `part` of them in words. On one text all predict the
    same tokens, each in windows of its own context inside of those of the longest.

    **Arguments:** see `evaluate_loss`.

    **Raises:** `InputError` for models of texts whose tokens differ, where `samples` would be
    other places of these texts.
    """
    made = on_same_tokens([evaluation_task(loaded, text) for loaded in models])
    data = [task.fingerprint() for task in made]
    texts = all(isinstance(task, tasks.AbstractNextToken) for task in made)
    if samples is not None and texts and len(set(data)) > 1:
        raise InputError(
            f"samples={samples}: {' and '.join(str(x.path) for x in models)} do not read the "
            "same tokens, so these would be other places of their texts; measure all of them."
        )
    rows = []
    for loaded, task, checksum in zip(models, made, data, strict=True):
        found = evaluate_on(loaded.measured, task, samples, part)
        check_finite(loaded, [found])
        of = {"data": checksum, "part": described_part(task, part)}
        rows.append({**of, "tokens": task.tokens_per_sample, **found})
    return rows


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
    a solve; of adaptive steps, which batches of samples share, the mean over samples. On meshes
    of several `tokens` a text is measured on the same of them, see `evaluate_models`.

    **Arguments:**

    - `meshes`: see `Mesh`. A width of an ordinary model has each of its features several times,
      see `Nodal`.
    - `layers`: where a mesh gives layers; see `model_on`.
    - `text`, `samples`, `part`: see `evaluate_loss`.

    **Raises:** `InputError` for a mesh that the model or its data do not have.
    """
    models = [model_on(loaded.measured, mesh, layers) for mesh in meshes]
    # The data of a run are compared with those of its training once.
    own = evaluation_task(loaded) if text is None and loaded.run is not None else None
    sizes = dict.fromkeys(mesh.tokens for mesh in meshes)
    made = {tokens: evaluation_task(loaded, text, tokens, own) for tokens in sizes}
    made = dict(zip(made, on_same_tokens([*made.values()]), strict=True))
    rows = []
    for mesh, model in zip(meshes, models, strict=True):
        task = made[mesh.tokens]
        measured = task.held_out(_BATCH, samples, checked_part(task, part, samples))
        found = measured_on(model, task, measured)
        rows.append({**mesh.described, **found})
    check_finite(loaded, rows)
    return rows


def held_out_in_depth(
    loaded: LoadedModel,
    meshes: Sequence[Mesh],
    text: str | None,
    samples: int | None,
    part: Part,
) -> tuple[AbstractTask, list[Batch]]:
    """The task and its batches for exits, which are measured on meshes in depth alone."""
    if wrong := [mesh.tokens for mesh in meshes if mesh.tokens is not None]:
        raise InputError(f"tokens={wrong[0]}: exits are measured on meshes in depth.")
    task = evaluation_task(loaded, text)
    part = checked_part(task, part, samples)
    return task, list(task.held_out(_BATCH, samples, part))


def check_finite(
    loaded: LoadedModel, rows: Sequence[dict[str, Any]], name: str = "loss"
) -> None:
    """Refuses rows of which none has a finite number of that name."""
    if not any(math.isfinite(row[name]) for row in rows):
        raise InputError(
            f"{loaded.path}: the {name} is {rows[0][name]}: the outputs are not finite, or no "
            f"target counts. Take {better_solve(loaded.model)}, another scheme or other data."
        )


def checked_part(task: AbstractTask, part: Part, samples: int | None = None) -> Part:
    """The part that is measured. Refuses data that have no such part, or give the validation
    samples in its place."""
    at_least_one("samples", samples)
    if task.whole and part not in task.parts:
        return "validation"
    if part not in task.parts:
        raise InputError(
            f"part={part}: these data have only {' and '.join(task.parts)}; a text that is "
            "trained with data.test=0.1 has a test part."
        )
    if part == "test" and "validation" in task.parts:
        pairs = zip(task.held_out(_BATCH, part=part), task.held_out(_BATCH), strict=False)
        if all(bool(eqx.tree_equal(*pair)) for pair in pairs):
            name = type(task).__name__
            raise InputError(
                f"part=test: {name}.held_out gives the samples of validation for it too; have "
                "its `parts` name validation alone, or give it a part of its own."
            )
    return part


def learned_before(loaded: LoadedModel, task: AbstractTask, part: Part) -> str | None:
    """How many samples of other data than those of a run are also its training samples, in
    words; `None` for none, and where the data of the run are not there any more."""
    if loaded.run is None or loaded.config is None:
        return None
    try:
        own = run_task(loaded.run, loaded.run.load_config(loaded.config))
    except InputError:
        return None
    part = checked_part(task, part)
    number, of = task.repeated([part], own).get(part, (0, 0))
    among = "the" if own.compared is None else f"the first {own.compared:,}"
    said = (
        f"{number:,} of {of:,} samples are also among {among} training samples of {loaded.path}"
    )
    return said if number else None


def described_part(task: AbstractTask, part: Part) -> str:
    """What is measured of the data of a task, in words."""
    whole = task.whole and task.parts == ("validation",)
    return "all of it" if whole else f"{part} part"


def at_least_one(name: str, size: int | None) -> None:
    if size is not None and size < 1:
        raise InputError(f"{name}={size}: give at least 1.")
