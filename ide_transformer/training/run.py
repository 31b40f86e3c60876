"""Trains a run, or resumes one."""

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ..arguments import checked
from ..errors import InputError
from ..memory import keep_freed_memory
from ..tasks import AbstractTask
from ..tasks.task import checksum_of_all
from .configuration.config import Config
from .configuration.files import as_config, override_config
from .configuration.training import TrainingConfig
from .folder.checkpoints import Checkpoints
from .folder.metrics import cut_metrics, say, trained_seconds
from .folder.run_folder import (
    RunFolder,
    changed_values,
    check_origin,
    flat_values,
    folder_to_resume,
    new_folder,
    source,
)
from .loop import Loop
from .results import write_results
from .setup import Setup, setup
from .steps import layout as parallel
from .steps.optimizer import learning_rate
from .steps.schedule import overrides_for_refinement
from .steps.step import TrainState
from .stopping import stop_requests


# Keys that may differ between the processes of a run.
_OF_A_PROCESS = ("parallel.rank", "parallel.coordinator", "parallel.timeout")


@checked
def train(
    config: Config | str | Path, *, runs: str | Path = "runs", resume: bool = False
) -> RunFolder:
    """Trains the model of a configuration and writes the folder of the run.

    **Arguments:**

    - `config`: a configuration, or the path of its YAML file.
    - `runs`: the folder of all runs.
    - `resume`: continue the unfinished run of this name from its last checkpoint. It learns and
      logs the same numbers, to the bit, as a run that never stopped. It may have more
      `training.steps` than before, if the learning rates of its steps so far do not change.

    **Raises:** `InputError` for input that cannot be used, if another process trains the run,
    or if the loss is not finite; `Stopped`, a `KeyboardInterrupt`, after a request to stop.
    """
    config = as_config(config)
    resumed = folder_to_resume(config.name, Path(runs), config) if resume else None
    return _run(config, resumed, Path(runs))


@checked
def resume_run(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    runs: str | Path = "runs",
    trust: bool = False,
) -> RunFolder:
    """Continues a run with the configuration in its folder; see `train`.

    **Arguments:**

    - `path`: the folder of the run, or its name in `runs`.
    - `overrides`: `training.steps=3000` for a longer run; what is logged and kept, such as
      `training.log_every=1`; and `parallel.key=value` for other devices or processes.
    - `trust`: see `load_run`.

    **Raises:** `InputError` for another override, and for code that is not trusted.
    """
    folder = RunFolder(path, trust=trust)
    if not Path(path, "config.yaml").is_file():
        folder = folder_to_resume(str(path), Path(runs), trust)
    config = folder.load_config()
    free = {f"training.{key}" for key in TrainingConfig.FREE} | {"training.steps"}
    keys = [override.partition("=")[0] for override in overrides]
    fixed = [key for key in keys if key not in free and not key.startswith("parallel.")]
    if fixed:
        raise InputError(
            f"{', '.join(fixed)}: a resumed run can change only {', '.join(sorted(free))}, "
            f"parallel.…; for others start a new run with model.pretrained={folder.path}."
        )
    return _run(override_config(config, overrides), folder, Path(runs))


@parallel.explain_lost_process()
def _run(config: Config, resumed: RunFolder | None, runs: Path) -> RunFolder:
    """Trains in a new folder, or in the folder that is `resumed`."""
    parallel.start(config.parallel)
    keep_freed_memory()
    began = time.perf_counter()
    prepared, folder = _prepare(config, resumed, runs)
    with folder.sole_use() if parallel.primary() else contextlib.nullcontext():
        _train(prepared, folder, began, is_resumed=resumed is not None)
    return folder


def _prepare(config: Config, resumed: RunFolder | None, runs: Path) -> tuple[Setup, RunFolder]:
    """Builds the objects of a run and checks that they fit; then makes its folder."""
    if resumed is not None:
        config = resumed_config(resumed, config)
    elif overrides := overrides_for_refinement(config):
        changes = f"{' '.join(overrides)} (docs/results/coarse_first.md)"
        say(f"training.schedule: a coarse mesh first also needs {changes}.")
    has_checkpoint = resumed is not None and resumed.newest_step is not None
    prepared = setup(config, resumed=resumed if has_checkpoint else None)
    task = prepared.task
    if parallel.primary():
        _say_repeated(task)
    prepared.check_shapes()
    data = task.fingerprint()
    if resumed is not None:
        check_origin(resumed, task, data, None if has_checkpoint else prepared.origin)
    values = flat_values(config)
    parallel.check_equal(
        {
            "another configuration": {
                name: x for name, x in values.items() if name not in _OF_A_PROCESS
            },
            "other data": {"checksum": data},
            "another version": {"version": f"{source(config)}, jax {jax.__version__}"},
        }
    )
    path = "" if resumed is None else str(resumed.path)
    if resumed is None and parallel.primary():
        path = str(new_folder(config, runs, task.save, data, prepared.origin, task).path)
    return prepared, RunFolder(parallel.from_primary(path), trust=config)


def _train(prepared: Setup, folder: RunFolder, began: float, *, is_resumed: bool) -> None:
    """Trains from the newest checkpoint to the last step, and writes the results."""
    training = prepared.training
    with (
        stop_requests() as stop,
        Checkpoints(folder, keep=training.keep, keep_best=training.keep_best) as checkpoints,
    ):
        state = _load_state(prepared, checkpoints)
        step = int(state.step)
        if step == training.steps and folder.summary.exists():
            return
        if parallel.primary():
            folder.record_config(prepared.config)
        began -= trained_seconds(folder)
        loop = Loop(prepared, folder, checkpoints, stop, began)
        logged = cut_metrics(folder.metrics, step, checkpoints.losses)
        if is_resumed:
            where = "going on from" if step else "no checkpoint yet: it begins again at"
            again = f"; steps {step + 1} to {logged} are made again" if logged > step else ""
            say(f"{folder.path}: {where} step {step}{again}")
        with jax.set_mesh(prepared.layout.devices):
            state = loop.run(prepared.layout.place(state))
            held_out = loop.evaluate_at_end(state)
        state = parallel.gather(state)
    if parallel.primary():
        write_results(prepared, folder, state, held_out, began)
    parallel.wait_for_all("written")


def _load_state(prepared: Setup, checkpoints: Checkpoints) -> TrainState:
    """The state of the newest checkpoint, or the first one. All processes have the same."""
    if checkpoints.newest() is None:
        state = prepared.phases.start(prepared.model, prepared.key)
    else:
        state = checkpoints.restore(prepared.phases.shapes_at)
        checkpoints.set_damaged_aside()
    parallel.wait_for_all("restored")
    if jax.process_count() > 1:
        # Compared before they are placed on the devices.
        checksum = checksum_of_all(state)
        parallel.check_equal({"another state": {"step": int(state.step), "checksum": checksum}})
    return state


def resumed_config(folder: RunFolder, config: Config) -> Config:
    """The configuration with which a run continues; see `train`. Writes nothing."""
    saved = folder.load_config()
    steps = config.training.steps
    saved_steps = saved.training.steps
    training = config.training.match_schedule(saved.training.schedule)
    config = config.replace(training=training)
    free = {key: getattr(saved.training, key) for key in training.FREE}
    with_free_values = config.changed("training", **free, steps=saved_steps)
    if changed_values(saved, with_free_values) or steps < saved_steps:
        raise InputError(
            f"--resume: {folder.path} was started with another configuration "
            f"({'; '.join(changed_values(saved, config))}). Use that one, with at least "
            f"training.steps={saved_steps}."
        )
    if steps == saved_steps:
        return config
    # Phases keep the steps at which they ended; percentages of the longer run would move them.
    config = config.changed("training", schedule=saved.training.schedule_in_steps)
    past_steps = jnp.arange(folder.newest_step or 0)
    rates = np.asarray(learning_rate(saved.optimizer, saved_steps)(past_steps))
    same = rates == np.asarray(learning_rate(config.optimizer, steps)(past_steps))
    if same.all():
        return config
    raise InputError(
        f"training.steps={steps}: from step {np.argmin(same) + 1} on {folder.path} has other "
        f"learning rates. Start a new run from model.pretrained={folder.path}."
    )


def _say_repeated(task: AbstractTask) -> None:
    """Says how many held-out samples are also training samples, if any."""
    compared = "the" if task.compared is None else f"the first {task.compared:,}"
    for part, (num_repeated, num_samples) in task.repeated().items():
        if num_repeated:
            say(
                f"{num_repeated:,} of {num_samples:,} {part} samples are also among {compared} "
                f"training samples, so the {part} loss is optimistic for unseen samples"
            )
