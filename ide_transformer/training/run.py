"""Runs: trained, and gone on with."""

import contextlib
import functools as ft
import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..arguments import checked
from ..errors import InputError, naming
from ..models import Model
from ..reporting import write_json
from ..tasks import AbstractTask
from ..tasks.task import checksum_of_all
from . import processes
from .build import build_start
from .checkpoints import Checkpoints
from .config import Config
from .construct import construct
from .folder import (
    RunFolder,
    check_data,
    flat_values,
    new_folder,
    newest_folder,
    resumed_folder,
    source,
)
from .loop import EVALUATION_BATCH, Loop
from .meshes import first_batches, mesh_maps
from .metrics import cut_metrics, read_metrics, seconds_logged
from .parallel import make_layout
from .phases import make_phases, shapes_at
from .reading import apply_overrides, validated
from .sizes import check_divisible
from .step import TrainState, num_parameters, objective, weights_of
from .stopping import stop_requests
from .trackers import AbstractTracker


# Keys in which the processes of a run may differ.
_OF_A_PROCESS = ("parallel.rank", "parallel.coordinator", "parallel.timeout")


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
    processes.start(config.parallel)
    with processes.others_needed():
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
    config = folder.load_config(trust)
    tree = config.model_dump(mode="json")
    origin = apply_overrides(tree, overrides)
    if any(not key.startswith("parallel.") for key in origin):
        raise InputError(
            f"{' '.join(overrides)}: {folder.path} goes on with its own configuration; "
            "drop the overrides. Only those of parallel.… can be given again."
        )
    if origin:
        config = validated(Config, tree, "the command line", origin)
    processes.start(config.parallel)
    with processes.others_needed():
        return _run(config, folder, runs)


def _run(config: Config, resumed: RunFolder | None, runs: Path) -> RunFolder:
    """Trains in a folder that exists, or in a new one."""
    began = time.perf_counter()
    training = config.training
    trackers: list[AbstractTracker] = [
        construct("training.trackers", part, AbstractTracker) for part in training.trackers
    ]
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
    values = {key: x for key, x in flat_values(config).items() if key not in _OF_A_PROCESS}
    processes.check_equal(
        {
            "another configuration": values,
            "other data": {"checksum": data},
            "another version": {"version": f"{source(config)}, jax {jax.__version__}"},
        }
    )
    primary, folder = processes.primary(), resumed
    if folder is None and primary:
        folder = new_folder(config, runs, task.save, data)
    folder = RunFolder(processes.from_primary("" if folder is None else str(folder.path)))
    with folder.sole_use() if primary else contextlib.nullcontext():
        with stop_requests() as stop, Checkpoints(folder, config, writes=True) as checkpoints:
            # It goes on from its last checkpoint, if it has one.
            if checkpoints.newest() is not None:
                state = checkpoints.restore(ft.partial(shapes_at, phases))
                checkpoints.set_damaged_aside()
            processes.wait_for_all("restored")
            if jax.process_count() > 1:
                # Before they are placed on the devices.
                own = {"step": int(state.step), "checksum": checksum_of_all(state)}
                processes.check_equal({"another state": own})
            if int(state.step) == training.steps and folder.summary.exists():
                return folder  # nothing is left to do
            if primary:
                folder.add_source(source(config))
            began -= seconds_logged(folder.metrics)
            cut_metrics(folder.metrics, int(state.step), checkpoints.losses)
            of_run = config, task, folder, checkpoints, stop, phases, layout, began, trackers
            with jax.set_mesh(layout.grid):
                state = (loop := Loop(*of_run)).run(layout.placed(state))
                unevaluated = "Stopped after the last step; --resume evaluates the run."
                check = ft.partial(stop.check, unevaluated)
                held_out = loop.evaluated(phases[-1], state, task.parts, check=check)
            state = processes.gathered(state)
        if primary:
            _write_results(folder, config, task, phases[-1].static, state, held_out, began)
        processes.wait_for_all("written")
    return folder


def _write_results(
    folder: RunFolder,
    config: Config,
    task: AbstractTask,
    static: PyTree,
    state: TrainState,
    held_out: dict[str, float],
    began: float,
) -> None:
    training = config.training
    weights = jax.tree.map(np.asarray, weights_of(state, "trained", training.average))
    model = eqx.combine(jax.tree.map(jnp.asarray, weights), static)
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
    # The last, so that a sample that cannot be written costs no results.
    text = task.sample(model, training.sample) if training.sample else None
    if text is not None:
        with naming(folder.sample):
            folder.sample.write_text(text + "\n", encoding="utf-8")


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


class DepthProfile(NamedTuple):
    """Root mean squares, over tokens and features, along the solution of a model.

    - `depths`: the boundaries of the intervals.
    - `state`: of the state there.
    - `increment`: of what each interval adds to it.
    """

    depths: Float[Array, " depths"]
    state: Float[Array, " depths"]
    increment: Float[Array, " intervals"]


def depth_profile(model: Model, inputs: PyTree) -> DepthProfile:
    """The profile of a batch of inputs."""
    knots = jnp.asarray(model.equation.knots)
    us = model.solve(inputs, saveat=diffrax.SaveAt(ts=knots)).us
    axes = tuple(range(1, us.ndim))
    return DepthProfile(
        knots,
        jnp.sqrt(jnp.mean(us**2, axes)),
        jnp.sqrt(jnp.mean(jnp.diff(us, axis=0) ** 2, axes)),
    )
