"""Runs: trained, and gone on with."""

import contextlib
import functools as ft
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..arguments import checked
from ..errors import GO_ON, InputError, at, naming, short
from ..memory import keep_freed_memory
from ..reporting import write_json
from ..tasks import AbstractTask
from ..tasks.task import checksum_of_all
from .configuration.config import Config, TrainingConfig
from .configuration.files import apply_overrides, as_config
from .configuration.reader import read
from .configuration.section import validated
from .folder.checkpoints import Checkpoints
from .folder.metrics import cut_metrics, say, seconds_taken
from .folder.run_folder import (
    RunFolder,
    check_origin,
    flat_values,
    folder_to_resume,
    new_folder,
    source,
    unfinished_twin,
)
from .folder.starting import build_start, configuration_of
from .loop import Diverged as Diverged, Loop
from .plots import plot_run
from .steps import layout as parallel
from .steps.layout import Layout, make_layout
from .steps.schedule import Programs, needed_by_refinement, programs_of
from .steps.sizes import check_divisible
from .steps.step import TrainState, num_parameters, objective, weights_of
from .stopping import stop_requests
from .trackers import AbstractTracker


# Keys in which the processes of a run may differ.
_OF_A_PROCESS = ("parallel.rank", "parallel.coordinator", "parallel.timeout")


@checked
def train(
    config: Config | str | Path,
    *,
    runs: str | Path = "runs",
    resume: bool = False,
    restart: bool = False,
) -> RunFolder:
    """Trains the model of a configuration and writes the folder of the run.

    **Arguments:**

    - `config`: a configuration, or the path of its YAML file.
    - `runs`: the folder of all runs.
    - `resume`: go on from the last checkpoint of the run of that name that is not finished.
      What is learned and logged is the same, to the bit, as if the run had never stopped. It
      may have more `training.steps` than it began with, where the steps that it has made had
      the learning rates of the longer run.
    - `restart`: with `resume` and more steps, for a run whose rate falls by a cosine: another
      one begins at the rate it has come to.

    **Raises:** `InputError` for input that cannot be used, where another process trains the
    run, or where the loss stays without a finite value; `Stopped`, a `KeyboardInterrupt`, when
    it was stopped, after saving a checkpoint.
    """
    config = as_config(config)
    if restart and not resume:
        raise InputError("restart=True is for a run that goes on; write resume=True too.")
    resumed = folder_to_resume(config.name, Path(runs), config) if resume else None
    return _run(config, resumed, Path(runs), restart)


@checked
def resume_run(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    runs: str | Path = "runs",
    trust: bool = False,
    restart: bool = False,
) -> RunFolder:
    """Goes on with a run by the configuration in its folder; see `train`.

    **Arguments:**

    - `path`: the folder, or the name of a run in `runs`, see `train`.
    - `overrides`: `training.steps=3000` for a longer run, what is logged and kept
      (`training.log_every=1`), and `parallel.key=value` for other devices or processes than it
      began with.
    - `trust`: see `load_run`.
    - `restart`: see `train`.

    **Raises:** `InputError` for another override, and for code that is not trusted.
    """
    there = Path(path, "config.yaml").is_file()
    folder = RunFolder(path) if there else folder_to_resume(str(path), Path(runs), trust)
    config = folder.load_config(trust)
    tree = config.model_dump(mode="json")
    origin = apply_overrides(tree, overrides)
    free = {f"training.{key}" for key in TrainingConfig.FREE} | {"training.steps"}
    foreign = [x for x in origin if x not in free and not x.startswith("parallel.")]
    if foreign:
        raise InputError(
            f"{', '.join(foreign)}: {folder.path} goes on with its own configuration; only "
            f"{', '.join(sorted(free))} and parallel.… can be given. For a new run with its "
            f"weights write model.pretrained={folder.path}."
        )
    if origin:
        config = validated(Config, tree, "the command line", origin)
    return _run(config, folder, Path(runs), restart)


@parallel.others_needed()
def _run(config: Config, resumed: RunFolder | None, runs: Path, restart: bool) -> RunFolder:
    """Train in a folder that exists, or in a new one."""
    parallel.start(config.parallel)
    keep_freed_memory()
    began = time.perf_counter()
    if resumed is not None:
        config = configuration_of(resumed, config, restart=restart)
    # What does not fit together fails here, before anything is written.
    job = _prepared(config, resumed)
    folder = resumed
    if folder is None and parallel.primary():
        folder = _new_folder(job, runs)
    folder = RunFolder(parallel.from_primary("" if folder is None else str(folder.path)))
    with folder.sole_use() if parallel.primary() else contextlib.nullcontext():
        return _trained(job, folder, resumed is not None, began)


class Job(NamedTuple):
    """What a run is made of.

    - `state`: the one before the first step.
    - `data`: the fingerprint of the data; `start` is `Start.origin`.
    """

    config: Config
    task: AbstractTask
    programs: Programs
    state: TrainState
    layout: Layout
    trackers: Sequence[AbstractTracker]
    data: str
    start: dict[str, Any] | None


def _prepared(config: Config, resumed: RunFolder | None) -> Job:
    """The parts of a run, which are tried on the shapes of a first batch."""
    training = config.training
    trackers = [read(AbstractTracker, x, "training.trackers") for x in training.trackers]
    layout = make_layout(config.parallel)
    needed = [] if resumed is not None else needed_by_refinement(config)
    if needed:
        say(
            f"training.schedule: a coarse mesh first also needs {' '.join(needed)}. Without "
            "the projected input and the transport cost it lost 0.074 nats on a text "
            "(docs/results/coarse_first.md)."
        )
    say(f"{config.name}: reading the data, data.name={short(config.data.name)}")
    # A run with a checkpoint of its own asks no other run for weights.
    begun = resumed is not None and resumed.newest_step is not None
    begins = config.model.run is None or not begun
    task, model, key, start = build_start(config, None if begins else resumed)
    programs = programs_of(config, model)
    state = programs.start(model, key)
    meshes = [mesh for program in programs for mesh in program.phase.meshes.values()]
    check_divisible(config, model, meshes)
    if parallel.primary():
        _say_repeated(task)
    loss = objective(task.loss, training)
    for program in programs:
        batches = program.first_batches(task)
        maps = program.phase.models()
        for mesh, model_on, batch in zip(program.phase.meshes, maps, batches, strict=True):
            with at(mesh) if training.schedule else contextlib.nullcontext():
                eqx.filter_eval_shape(loss, model_on(program.model), batch)
    data = task.fingerprint()
    if resumed is not None:
        check_origin(resumed, task, data, None if begun else start)
    values = {key: x for key, x in flat_values(config).items() if key not in _OF_A_PROCESS}
    parallel.check_equal(
        {
            "another configuration": values,
            "other data": {"checksum": data},
            "another version": {"version": f"{source(config)}, jax {jax.__version__}"},
        }
    )
    return Job(config, task, programs, state, layout, trackers, data, start)


def _new_folder(job: Job, runs: Path) -> RunFolder:
    """The folder of a new run; says where a run of this configuration is not finished."""
    twin = unfinished_twin(job.config, runs)
    folder = new_folder(job.config, runs, job.task.save, job.data, job.start)
    if twin is not None:
        say(
            f"{twin.path} is not finished (step {twin.newest_step or 0} of "
            f"{job.config.training.steps}), and --resume would go on with it; this is a new "
            f"run, {folder.path}."
        )
    return folder


def _trained(job: Job, folder: RunFolder, resumed: bool, began: float) -> RunFolder:
    """Train from the last checkpoint in a folder, or from the start, and write the results."""
    config = job.config
    state = job.state
    with stop_requests() as stop, Checkpoints(folder, config, writes=True) as checkpoints:
        if checkpoints.newest() is not None:
            state = checkpoints.restore(job.programs.shapes_at)
            checkpoints.set_damaged_aside()
        began -= seconds_taken(folder)
        parallel.wait_for_all("restored")
        step = int(state.step)
        if jax.process_count() > 1:
            # Before they are placed on the devices.
            own = {"step": step, "checksum": checksum_of_all(state)}
            parallel.check_equal({"another state": own})
        if step == config.training.steps and folder.summary.exists():
            return folder  # nothing is left to do
        if parallel.primary():
            folder.go_on_by(config)
            folder.add_source(source(config))
        logged = cut_metrics(folder.metrics, step, checkpoints.losses)
        if resumed:
            again = f"; steps {step + 1} to {logged} are made again" * (logged > step)
            begun = "going on from" if step else "no checkpoint yet: it begins again at"
            say(f"{folder.path}: {begun} step {step}{again}")
        loop = Loop(
            config,
            job.task,
            folder,
            checkpoints,
            stop,
            job.programs,
            job.layout,
            began,
            job.trackers,
        )
        with jax.set_mesh(job.layout.grid):
            state = loop.run(job.layout.placed(state))
            say(f"evaluating the {' and the '.join(job.task.parts)} part")
            unevaluated = f"Stopped after the last step, before its evaluation; {GO_ON}."
            check = ft.partial(stop.check, unevaluated)
            held_out = loop.evaluated(job.programs[-1], state, job.task.parts, check=check)
            loop.check_finite(held_out)
        state = parallel.gathered(state)
    if parallel.primary():
        # Without these nobody could read the results.
        folder.load_config(config)
        _ = folder.recorded
        _write_results(loop, state, held_out)
    parallel.wait_for_all("written")
    return folder


def _say_repeated(task: AbstractTask) -> None:
    """Says how many held-out samples are also training samples, if any."""
    among = "the" if task.compared is None else f"the first {task.compared:,}"
    for part, (number, of) in task.repeated().items():
        if number:
            say(
                f"{number:,} of {of:,} {part} samples are also among {among} training "
                f"samples, so the {part} loss says less of new ones"
            )


def _write_results(loop: Loop, state: TrainState, held_out: dict[str, float]) -> None:
    training = loop.config.training
    task = loop.task
    folder = loop.folder
    weights = jax.tree.map(np.asarray, weights_of(state, "trained", training.average))
    model = eqx.combine(jax.tree.map(jnp.asarray, weights), loop.programs[-1].static)
    say("drawing the figures" + " and writing a sample" * bool(training.sample))
    plot_run(folder, task, model, training.begins[1:])
    evaluations = float(state.evaluations)
    steps = int(state.step)
    summary = {
        **held_out,
        "steps": steps,
        "parameters": num_parameters(state),
        "nfe": evaluations / steps,
        "evaluations": evaluations,
        "seconds": round(time.perf_counter() - loop.began, 1),
        "bad_steps": int(state.faults.bad_steps),
        "rollbacks": int(state.faults.rollbacks),
    }
    write_json(folder.summary, summary)
    # The last, so that a sample that cannot be written costs no results.
    text = task.sample(model, training.sample) if training.sample else None
    if text is not None:
        with naming(folder.sample):
            folder.sample.write_text(text + "\n", encoding="utf-8")
