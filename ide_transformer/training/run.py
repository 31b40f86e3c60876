"""Runs: trained, and gone on with."""

import contextlib
import functools as ft
import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..arguments import checked
from ..errors import InputError, naming
from ..models import Model
from ..reporting import write_json
from ..tasks import AbstractTask
from .averages import Weights, weights_of
from .build import build_start
from .checkpoints import Checkpoints
from .config import Config, TrainingConfig
from .folder import RunFolder, check_data, new_folder, newest_folder, resumed_folder
from .loop import EVALUATION_BATCH, Loop
from .meshes import first_batches, mesh_maps
from .metrics import cut_metrics, read_metrics, seconds_logged, validation_losses
from .objective import objective
from .parallel import Layout, check_divisible, make_layout
from .phases import Phase, make_phases, shapes_at
from .processes import (
    check_start,
    check_state,
    from_primary,
    gathered,
    others_needed,
    own_copy,
    primary,
    start_processes,
    wait_for_all,
)
from .profile import depth_profile
from .reading import apply_overrides, validated
from .source import source
from .step import TrainState, num_parameters
from .stopping import stop_requests
from .trackers import AbstractTracker
from .trackers.build import build_trackers


_UNEVALUATED = "Stopped after the last step; --resume evaluates the run."
# The weights that are evaluated at the end, and the ends of the names of their figures.
_EVALUATED: tuple[tuple[Weights, str], ...] = (("trained", ""), ("average", "_of_average"))


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
    start_processes(config.parallel)
    with others_needed():
        return _run(config, resumed_folder(config, runs) if resume else None, runs)


@checked
def resume_run(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    runs: Path = Path("runs"),
    trust: bool = False,
) -> RunFolder:
    """Goes on with a run by the configuration in its folder; see `train`.

    **Arguments:**

    - `path`: the folder, or the name of a run in `runs`, of which the newest is taken.
    - `overrides`: `parallel.key=value`, for other devices or processes than it began with.
    - `trust`: see `load_run`.

    **Raises:** `InputError` for another override, and for code that is not trusted.
    """
    folder = RunFolder(path)
    if not folder.config.is_file():
        folder = newest_folder(str(path), runs, trust)
    config = on_other_devices(folder.load_config(trust), overrides, folder.path)
    start_processes(config.parallel)
    with others_needed():
        return _run(config, folder, runs)


def _run(config: Config, resumed: RunFolder | None, runs: Path) -> RunFolder:
    """Trains in a folder that exists, or in a new one."""
    began = time.perf_counter()
    training, trackers = config.training, build_trackers(config)
    layout = make_layout(config.parallel)
    task, model, key = build_start(config)
    # What does not fit together fails here, before anything is written.
    state, phases = make_phases(config, model, key)
    check_divisible(config, model)
    loss = objective(task.loss, training)
    meshes = zip(mesh_maps(training), first_batches(training, task), strict=True)
    for phase, (model_on, first) in itertools.product(phases, meshes):
        eqx.filter_eval_shape(loss, model_on(phase.model), first)
    data = task.fingerprint()
    if resumed is not None:
        check_data(resumed, task, data)
    check_start(config, data)
    folder = resumed
    if folder is None and primary():
        folder = new_folder(config, runs, task.save, data)
    folder = RunFolder(from_primary("" if folder is None else str(folder.path)))
    with folder.sole_use() if primary() else contextlib.nullcontext():
        return _train(folder, config, task, state, phases, layout, trackers, began)


def _train(
    folder: RunFolder,
    config: Config,
    task: AbstractTask,
    state: TrainState,
    phases: list[Phase],
    layout: Layout,
    trackers: list[AbstractTracker],
    began: float,
) -> RunFolder:
    """Trains in a folder that no other run uses, from its last checkpoint if it has one."""
    training = config.training
    losses = validation_losses(folder.metrics)
    with (
        stop_requests() as stop,
        Checkpoints(folder, config, losses, writes=True) as checkpoints,
        own_copy(folder) as own,
    ):
        if checkpoints.newest() is not None:
            state = checkpoints.restore(ft.partial(shapes_at, phases))
            checkpoints.set_damaged_aside()
        wait_for_all("restored")
        check_state(int(state.step), state)
        if int(state.step) == training.steps and folder.summary.exists():
            return folder  # nothing is left to do
        if primary():
            folder.add_source(source(config))
        began -= seconds_logged(own.metrics)
        cut_metrics(own.metrics, int(state.step), losses)
        shown = trackers if primary() else []
        loop = Loop(
            training, task, own, checkpoints, losses, stop, phases, layout, began, shown
        )
        with jax.set_mesh(layout.grid):
            state = loop.run(layout.placed(state))
            held_out = {}
            for which, suffix in _EVALUATED[: 2 if training.average else 1]:
                weights = weights_of(state, which, training.average)
                for part in task.parts:
                    found = phases[-1].evaluate(
                        weights,
                        task,
                        EVALUATION_BATCH,
                        part=part,
                        check=ft.partial(stop.check, _UNEVALUATED),
                        place=layout.batch,
                    )
                    held_out |= {f"{name}{suffix}": value for name, value in found.items()}
        state = gathered(state) if jax.process_count() > 1 else state
    weights = weights_of(state, "trained", training.average)
    if layout.grid.size > 1:
        weights = jax.tree.map(np.asarray, weights)
    if primary():
        _write_results(folder, task, phases[-1], weights, state, held_out, began, training)
    wait_for_all("written")
    return folder


def _write_results(
    folder: RunFolder,
    task: AbstractTask,
    phase: Phase,
    weights: PyTree,
    state: TrainState,
    held_out: dict[str, float],
    began: float,
    training: TrainingConfig,
) -> None:
    """The plots, the summary and the sample at the end of a run. The sample is the last, so
    that none that cannot be written costs the results."""
    weights = jax.tree.map(jnp.asarray, weights)
    model = eqx.combine(weights, phase.static)
    plot_run(folder, task, model, {"step": training.steps, **held_out})
    evaluations, steps = float(state.evaluations), int(state.step)
    summary = {
        **held_out,
        "steps": steps,
        "parameters": num_parameters(state),
        "nfe": evaluations / steps,
        "evaluations": evaluations,
        "seconds": round(time.perf_counter() - began, 1),
        "bad_steps": int(state.faults.bad_steps),
        "rollbacks": int(state.faults.rollbacks),
    }
    write_json(folder.summary, summary)
    text = task.sample(model, training.sample) if training.sample else None
    if text is not None:
        with naming(folder.sample):
            folder.sample.write_text(text + "\n", encoding="utf-8")


def on_other_devices(config: Config, overrides: Sequence[str], path: Path) -> Config:
    """The configuration with overrides `parallel.key=value`; nothing else of a run changes."""
    if not overrides:
        return config
    tree = config.model_dump(mode="json")
    origin = apply_overrides(tree, overrides)
    if any(not key.startswith("parallel.") for key in origin):
        raise InputError(
            f"{' '.join(overrides)}: {path} goes on with its own configuration; drop the "
            "overrides. Only those of parallel.… can be given again."
        )
    return validated(Config, tree, "the command line", origin)


def plot_run(folder: RunFolder, task: AbstractTask, model: Model, end: dict[str, Any]) -> None:
    """Plots the loss over the run, with the step and the validation loss at its end, and the
    size of the state over depth."""
    from ..figures import plot_curves

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
