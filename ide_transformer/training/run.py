"""Runs: trained, loaded, and made from a checkpoint or into one."""

import functools as ft
import itertools
import math
import statistics
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax

from ..arguments import checked
from ..errors import InputError
from ..models import AbstractModel
from ..pretrained import find_pretrained, save_pretrained
from ..reporting import plot_curves, write_json
from ..tasks import AbstractTask, PretrainedTokenizer
from .build import build_model_of_size, build_start, build_task, task_class
from .checkpoints import Checkpoints, Which
from .config import Config
from .folder import RunFolder, check_data, new_folder, newest_folder, resumed_folder, sole_use
from .loop import EVALUATION_BATCH, Loop
from .meshes import mesh_maps, mesh_tasks
from .metrics import cut_metrics, read_metrics, validation_losses
from .objective import objective
from .optimizer import build_optimizer, evaluated_weights
from .profile import depth_profile
from .reading import validated
from .refinement import first_model
from .stages import Stage, make_stages, shapes_at, stage_at
from .step import TrainState, initial_state, num_parameters
from .stopping import stop_requests
from .trackers import AbstractTracker
from .trackers.build import build_trackers


@checked
def train(config: Config, *, runs: Path = Path("runs"), resume: bool = False) -> RunFolder:
    """Trains the model of `config` and writes the folder of the run.

    **Arguments:**

    - `runs`: the folder of all runs.
    - `resume`: go on from the last checkpoint of the newest run of that name. What is
      learned and logged is the same, to the bit, as if the run had never stopped.

    **Raises:** `InputError` for input that cannot be used, where another process trains the
    run, or where the loss stays without a finite value; `Stopped`, a `KeyboardInterrupt`, when
    it was stopped, after saving a checkpoint.
    """
    return _run(config, resumed_folder(config, runs) if resume else None, runs)


@checked
def resume_run(path: str | Path, *, runs: Path = Path("runs")) -> RunFolder:
    """Goes on with a run by the configuration in its folder; see `train`.

    **Arguments:**

    - `path`: the folder, or the name of a run in `runs`, of which the newest is taken.
    """
    folder = RunFolder(path)
    if not folder.config.is_file():
        folder = newest_folder(str(path), runs)
    return _run(folder.load_config(), folder, runs)


def _run(config: Config, resumed: RunFolder | None, runs: Path) -> RunFolder:
    """Trains in a folder that exists, or in a new one."""
    began = time.perf_counter()
    training, trackers = config.training, build_trackers(config)
    task, model, key = build_start(config)
    # What does not fit together fails here, before anything is written.
    state, stages = make_stages(config, model, key)
    loss = objective(task.loss, training)
    meshes = zip(mesh_maps(training), mesh_tasks(training, task), strict=True)
    for stage, (on_mesh, data) in itertools.product(stages, meshes):
        first = data.batch(0, training.batch_size, training.seed)
        eqx.filter_eval_shape(loss, on_mesh(stage.model), first)
    if resumed is not None:
        check_data(resumed, task)
    folder = resumed or new_folder(config, runs, task.save, task.fingerprint())
    with sole_use(folder):
        return _train(folder, config, task, state, stages, trackers, began)


def _train(
    folder: RunFolder,
    config: Config,
    task: AbstractTask,
    state: TrainState,
    stages: list[Stage],
    trackers: list[AbstractTracker],
    began: float,
) -> RunFolder:
    """Trains in a folder that no other process uses, from its last checkpoint if it has one."""
    training = config.training
    losses = validation_losses(folder.metrics)
    with (
        stop_requests() as stop,
        Checkpoints(folder, config, losses, writes=True) as checkpoints,
    ):
        if checkpoints.newest() is not None:
            state = checkpoints.restore(ft.partial(shapes_at, stages))
            checkpoints.set_damaged_aside()
        if int(state.step) == training.steps and folder.summary.exists():
            return folder  # nothing is left to do
        cut_metrics(folder.metrics, int(state.step), losses)
        loop = Loop(training, task, folder, checkpoints, losses, stop, stages, trackers)
        state = loop.run(state)
    stop.check("Stopped after the last step; --resume evaluates the run.")
    weights = evaluated_weights(state.optimizer, state.weights)
    parts = [stages[-1].evaluate(weights, task, EVALUATION_BATCH, part=x) for x in task.parts]
    held_out = dict(itertools.chain.from_iterable(x.items() for x in parts))
    model = eqx.combine(weights, stages[-1].static)
    plot_run(folder, task, model, {"step": training.steps, **held_out})
    text = task.sample(model, training.sample) if training.sample else None
    if text is not None:
        folder.sample.write_text(text + "\n", encoding="utf-8")
    logged = [line for line in read_metrics(folder.metrics) if "loss" in line]
    evaluations = float(state.evaluations)
    summary = {
        **held_out,
        "steps": int(state.step),
        "parameters": num_parameters(state),
        "nfe": statistics.mean(line["field_evaluations"] for line in logged),
        "evaluations": evaluations if math.isfinite(evaluations) else None,
        "seconds": round(time.perf_counter() - began, 1),
        "bad_steps": int(state.faults.bad_steps),
        "rollbacks": int(state.faults.rollbacks),
    }
    write_json(folder.summary, summary)
    return folder


@checked
def load_run(
    path: str | Path, *, checkpoint: Which = "newest"
) -> tuple[AbstractModel, RunFolder]:
    """The trained model of a run and its folder. The folder's `load_tokenizer` gives what
    `generate` needs to write text.

    A run that is refined (`training.refine`) and was stopped on its way gives the model on the
    mesh of that step.

    **Arguments:**

    - `checkpoint`: "newest"; "best", the one with the lowest validation loss on the way (see
      `training.keep_best`); or a step. For one that is damaged the newest before it is
      taken, with a warning.

    **Raises:** `InputError` if `path` is not the folder of a run with such a checkpoint.
    """
    folder = RunFolder(path)
    return restored(folder, folder.load_config(), checkpoint), folder


def restored(folder: RunFolder, config: Config, checkpoint: Which) -> AbstractModel:
    """The model of a run with the weights of a checkpoint; see `load_run`.

    **Arguments:**

    - `config`: that of the run, or one whose model has weights of the same shapes.
    """
    key = jax.random.key(0)  # the weights that it draws are replaced below
    sizes = run_sizes(folder, config)
    model = first_model(config, lambda config: build_model_of_size(config, sizes, key))
    _, stages = make_stages(config, model, key)
    losses = validation_losses(folder.metrics) if checkpoint == "best" else {}
    with Checkpoints(folder, config, losses, writes=False) as checkpoints:
        state = checkpoints.restore(ft.partial(shapes_at, stages), checkpoint)
    static = stage_at(stages, int(state.step)).static
    return eqx.combine(evaluated_weights(state.optimizer, state.weights), static)


def run_sizes(folder: RunFolder, config: Config) -> dict[str, Any]:
    """The sizes of a model that the data of a run decide."""
    sizes = task_class(config).saved_sizes(folder.tokenizer)
    return build_task(config).sizes if sizes is None else sizes


def import_pretrained(path: str, name: str, runs: Path) -> RunFolder:
    """A run at step 0 with the weights and the tokenizer of the checkpoint of a language
    model, solved by its native scheme.

    **Arguments:**

    - `path`: see `load_pretrained`.
    - `name`: of the run, in the folder `runs`.
    """
    found = find_pretrained(path)
    tokenizer = PretrainedTokenizer.from_pretrained(found)
    # A path is kept whole, so that the run can be read from anywhere.
    kept = str(found.resolve()) if Path(path).exists() else path
    config = validated(Config, {"name": name, "model": {"pretrained": kept}}, f"{runs / name}")
    key = jax.random.key(config.training.seed)
    model = build_model_of_size(config, {"vocabulary": tokenizer.vocabulary}, key)
    optimizer = build_optimizer(config.optimizer, config.training.steps)
    state, _ = initial_state(model, optimizer, key)
    folder = new_folder(config, runs, tokenizer.save)
    with sole_use(folder), Checkpoints(folder, config, {}, writes=True) as checkpoints:
        checkpoints.save(0, state)
    return folder


def export_run(run: Path, path: Path) -> None:
    """The weights of a run that began from a checkpoint, in the layout of that checkpoint.

    **Raises:** `InputError` for a run that did not, or is solved by another scheme.
    """
    model, folder = load_run(run)
    source = folder.load_config().model.pretrained
    if source is None:
        raise InputError(
            f"{run} did not begin from a checkpoint (model.pretrained), so there is no layout "
            "to write it in; load it with ide_transformer.training.load_run."
        )
    save_pretrained(model, path, like=source)


def plot_run(
    folder: RunFolder, task: AbstractTask, model: AbstractModel, end: dict[str, Any]
) -> None:
    """Plots the loss over the run, with the step and the validation loss at its end, and the
    size of the state over depth."""
    lines = [*read_metrics(folder.metrics), end]
    losses = {}
    for name, key in (("training", "loss"), ("validation", "validation_loss")):
        logged = {line["step"]: line[key] for line in lines if line.get(key) is not None}
        losses[name] = [*logged], [*logged.values()]
    plot_curves(folder.plots / "loss.png", losses, x="step", y=task.loss.label)
    batch = next(task.held_out(EVALUATION_BATCH))
    depths, state, increment = depth_profile(model, batch.inputs)
    plot_curves(
        folder.plots / "state_norm.png",
        {"state": (depths, state), "increment": (depths[1:], increment)},
        x="depth t (layers)",
        y="root mean square over tokens and features",
        marker="o",
    )
