"""Trains a run, or resumes one."""

import contextlib
import functools as ft
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PRNGKeyArray

from ..arguments import checked
from ..equation import merge_low_rank
from ..errors import GO_ON, InputError, at, naming, short
from ..memory import keep_freed_memory
from ..models import Model
from ..reporting import write_json
from ..tasks import AbstractTask
from ..tasks.task import checksum_of_all
from .configuration.config import Config, TrainingConfig
from .configuration.files import apply_overrides, as_config, validated
from .configuration.reader import read
from .folder.checkpoints import Checkpoints
from .folder.loading import checksum_of_weights, restored
from .folder.metrics import cut_metrics, read_metrics, say, seconds_taken
from .folder.run_folder import (
    RunFolder,
    changed_values,
    check_origin,
    flat_values,
    folder_to_resume,
    new_folder,
    same_tokenizer,
    source,
)
from .loop import Diverged as Diverged, Loop
from .steps import layout as parallel
from .steps.build import (
    build_model,
    build_task,
    objective,
    with_lora,
    with_solver,
    with_training,
)
from .steps.layout import check_divisible, make_layout
from .steps.optimizer import learning_rate
from .steps.schedule import (
    Programs,
    first_model,
    needed_by_refinement,
    programs_of,
    weight_shapes,
)
from .steps.step import TrainState, weights_of
from .stopping import stop_requests
from .trackers import AbstractTracker


# Keys of the model in which a run may differ from the run whose weights it takes, as long as
# the weights keep their shapes.
_FREE = {"context", "width", "layers", "dropout", "run", "checkpoint", "horizon"}
# Held-out samples over which drawn states are averaged.
_SAMPLES = 64
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
    there = Path(path, "config.yaml").is_file()
    folder = RunFolder(path) if there else folder_to_resume(str(path), Path(runs), trust)
    config = folder.load_config(trust)
    tree = config.model_dump(mode="json")
    origin = apply_overrides(tree, overrides)
    free = {f"training.{key}" for key in TrainingConfig.FREE} | {"training.steps"}
    foreign = [x for x in origin if x not in free and not x.startswith("parallel.")]
    if foreign:
        what = f"{', '.join(foreign)}: a resumed run takes {', '.join(sorted(free))}"
        raise InputError(f"{what}, parallel.…; a new one takes model.pretrained={folder.path}.")
    if origin:
        config = validated(Config, tree, "the command line", origin)
    return _run(config, folder, Path(runs))


@parallel.explain_lost_process()
def _run(config: Config, resumed: RunFolder | None, runs: Path) -> RunFolder:
    """Trains in a new folder, or in the folder that is `resumed`."""
    parallel.start(config.parallel)
    keep_freed_memory()
    began = time.perf_counter()
    if resumed is not None:
        config = resumed_config(resumed, config)

    # Whatever does not fit together fails here, before anything is written.
    trackers = [read(AbstractTracker, x, "training.trackers") for x in config.training.trackers]
    layout = make_layout(config.parallel)
    if resumed is None and (needed := needed_by_refinement(config)):
        write = f"{' '.join(needed)} (docs/results/coarse_first.md)"
        say(f"training.schedule: a coarse mesh first also needs {write}.")
    say(f"{config.name}: reading the data, data.name={short(config.data.name)}")
    # A run with a checkpoint takes no weights from another run.
    begun = resumed is not None and resumed.newest_step is not None
    own = resumed if begun and config.model.run is not None else None
    start = build_start(config, begun=own)
    task = start.task
    model = start.model
    origin = start.origin
    programs = start.programs
    state = programs.start(model, start.key)
    meshes = [mesh for program in programs for mesh in program.phase.meshes.values()]
    check_divisible(config.parallel, config.training, model, meshes)
    if parallel.primary():
        _say_repeated(task)
    loss = objective(task.loss, config.training)
    for program in programs:
        tried = zip(program.phase.meshes, program.on_meshes(task), strict=True)
        for place, (model_on, batch) in tried:
            on_mesh = model_on(program.model)
            with at(place) if config.training.schedule else contextlib.nullcontext():
                eqx.filter_eval_shape(loss, on_mesh, batch)
    data = task.fingerprint()
    if resumed is not None:
        check_origin(resumed, task, data, None if begun else origin)
    values = {name: x for name, x in flat_values(config).items() if name not in _OF_A_PROCESS}
    parallel.check_equal(
        {
            "another configuration": values,
            "other data": {"checksum": data},
            "another version": {"version": f"{source(config)}, jax {jax.__version__}"},
        }
    )

    folder = resumed
    if folder is None and parallel.primary():
        folder = new_folder(config, runs, task.save, data, origin, task.sizes, task.labels)
    folder = RunFolder(parallel.from_primary("" if folder is None else str(folder.path)))
    with folder.sole_use() if parallel.primary() else contextlib.nullcontext():
        with stop_requests() as stop, Checkpoints(folder, config, writes=True) as checkpoints:
            if checkpoints.newest() is not None:
                state = checkpoints.restore(programs.shapes_at)
                checkpoints.set_damaged_aside()
            began -= seconds_taken(folder)
            parallel.wait_for_all("restored")
            step = int(state.step)
            if jax.process_count() > 1:
                # Compared before they are placed on the devices.
                reached = {"step": step, "checksum": checksum_of_all(state)}
                parallel.check_equal({"another state": reached})
            if step == config.training.steps and folder.summary.exists():
                return folder  # nothing is left to do
            if parallel.primary():
                folder.record_config(config)
            logged = cut_metrics(folder.metrics, step, checkpoints.losses)
            if resumed is not None:
                again = f"; steps {step + 1} to {logged} are made again" * (logged > step)
                where = "going on from" if step else "no checkpoint yet: it begins again at"
                say(f"{folder.path}: {where} step {step}{again}")
            loop = Loop(
                config, task, folder, checkpoints, stop, programs, layout, began, trackers
            )
            with jax.set_mesh(layout.grid):
                state = loop.run(layout.placed(state))
                say(f"evaluating the {' and the '.join(task.parts)} part")
                unevaluated = f"Stopped after the last step, before its evaluation; {GO_ON}."
                check = ft.partial(stop.check, unevaluated)
                held_out = loop.evaluated(programs[-1], state, task.parts, check=check)
                loop.check_finite(held_out)
            state = parallel.gathered(state)
        if parallel.primary():
            _write_results(loop, state, held_out)
        parallel.wait_for_all("written")
    return folder


class Start(NamedTuple):
    """The start of a run.

    - `origin`: `None` if its weights are drawn; else a checksum of the weights, and the number
      and the step of the run that they are from.
    """

    task: AbstractTask
    model: Model
    key: PRNGKeyArray
    origin: dict[str, Any] | None
    config: Config

    @property
    def programs(self) -> Programs:
        return programs_of(self.config, self.model)


def build_start(
    config: Config, task: AbstractTask | None = None, *, begun: RunFolder | None = None
) -> Start:
    """The start of a run. `task` has its data, if they are already read. A run that is `begun`
    has its own tokenizer and weights and takes none from another run."""
    tokenizer = None if begun is None else begun.known_tokenizer
    data = build_task(config, tokenizer) if task is None else task
    model_key, key = jax.random.split(jax.random.key(config.training.seed))

    def build(config: Config) -> Model:
        return build_model(config, data, model_key)

    model = first_model(config, build)
    origin: dict[str, Any] = {}
    if config.model.run is not None and begun is None:
        run = RunFolder(config.model.run)
        model, step = _with_weights_of_run(config, data, model, run)
        origin = {"run": run.identity, "step": step}
    if origin or config.model.pretrained is not None:
        origin["weights"] = checksum_of_weights(model)
    model = with_training(model, config.training)
    return Start(data, model, key, origin or None, config)


def _with_weights_of_run(
    config: Config, task: AbstractTask, model: Model, run: RunFolder
) -> tuple[Model, int]:
    """The model with the weights of a run, and the step of the weights."""
    own = run.load_config(config)
    changed = {
        text.partition(":")[0].rpartition(".")[2]: text
        for text in changed_values(own, config)
        if text.startswith(("model.", "control.")) and not text.startswith("model.lora")
    }
    begins = f"model.pretrained={run.path}"
    if wrong := [text for key, text in changed.items() if key not in _FREE]:
        raise InputError(f"{begins} gives the model; drop what differs ({'; '.join(wrong)}).")
    if not same_tokenizer(run, task):
        raise InputError(f"{begins}: data.name={config.data.name} has other tokens.")
    there, step = restored(run, own, config.model.checkpoint, "trained")
    if config.model.lora != own.model.lora:
        key = jax.random.key(config.training.seed)
        there = with_lora(merge_low_rank(there), config.model.lora, key)
    if config.solver != own.solver:
        there = with_solver(there, config.solver)
    fits = weight_shapes(there) == weight_shapes(model)
    if not fits and there.layers < own.model.layers:
        write = f"model.layers={there.layers} and control.horizon={there.control.horizon:g}"
        raise InputError(f"{begins} has {there.layers} layers at that step; write {write}.")
    if not fits:
        free = [text for key, text in changed.items() if key not in ("run", "checkpoint")]
        differ = "; ".join(free) or f"the sizes of the data, here {task.sizes}"
        raise InputError(f"{begins}: its weights do not fit; drop what differs ({differ}).")
    weights, static = eqx.partition(model, eqx.is_inexact_array)
    taken = jax.tree.leaves(eqx.filter(there, eqx.is_inexact_array))
    combined = eqx.combine(jax.tree.structure(weights).unflatten(taken), static)
    return combined, step


def resumed_config(folder: RunFolder, config: Config) -> Config:
    """The configuration with which a run continues; see `train`. Writes nothing."""
    own = folder.load_config(config)
    steps = config.training.steps
    before = own.training.steps
    config = config.model_copy(update={"training": config.training.scheduled_as(own.training)})
    free = {key: getattr(own.training, key) for key in own.training.FREE}
    others = changed_values(own, config.changed("training", **free, steps=before))
    if others or steps < before:
        differ = "; ".join(changed_values(own, config))
        what = f"--resume: {folder.path} was started with another configuration ({differ})"
        raise InputError(f"{what}. Give the same one, with as many training.steps or more.")
    if steps == before:
        return config
    # Phases keep the steps at which they ended; percentages of the longer run would move them.
    config = config.changed("training", schedule=own.training.schedule_in_steps)
    made = folder.newest_step or 0
    rate = learning_rate(own.optimizer, before)
    longer = learning_rate(config.optimizer, steps)
    numbers = jnp.arange(made)
    same = np.asarray(rate(numbers)) == np.asarray(longer(numbers))
    if same.all():
        return config
    raise InputError(
        f"training.steps={steps}: from step {np.argmin(same) + 1} on {folder.path} has other "
        f"learning rates. Start a new run from model.pretrained={folder.path}."
    )


def _say_repeated(task: AbstractTask) -> None:
    """Says how many held-out samples are also training samples, if any."""
    among = "the" if task.compared is None else f"the first {task.compared:,}"
    for part, (number, of) in task.repeated().items():
        if number:
            said = (
                f"{number:,} of {of:,} {part} samples are also among {among} training samples"
            )
            say(f"{said}, so the {part} loss says less of new ones")


def _write_results(loop: Loop, state: TrainState, held_out: dict[str, float]) -> None:
    """Writes figures, summary and sample."""
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
        "parameters": optax.tree.size(state.weights),
        "nfe": evaluations / steps,
        "evaluations": evaluations,
        "seconds": round(time.perf_counter() - loop.began, 1),
        "bad_steps": int(state.faults.bad_steps),
        "rollbacks": int(state.faults.rollbacks),
    }
    write_json(folder.summary, summary)
    # Written last, so that a sample that fails costs no results.
    text = task.sample(model, training.sample) if training.sample else None
    if text is not None:
        with naming(folder.sample):
            folder.sample.write_text(text + "\n", encoding="utf-8")


def plot_run(
    folder: RunFolder, task: AbstractTask, model: Model, begins: Sequence[int] = ()
) -> None:
    """Draws the loss over the run, with a line at each step where a phase `begins`; and over
    depth, the size of the state and of the increment of each layer."""
    from ..figures import plot_curves

    lines = read_metrics(folder.metrics)
    losses = {}
    for name, key in (("training", "loss"), ("validation", "validation_loss")):
        logged = {line["step"]: line[key] for line in lines if line.get(key) is not None}
        losses[name] = [*logged], [*logged.values()]
    look = dict(title="Loss over the run", x="step", y=task.loss.label)
    plot_curves(folder.plots / "loss.png", losses, marks=begins, **look)
    batch = next(task.held_out(_SAMPLES))
    knots = jnp.asarray(model.equation.knots)
    us = model.solve(batch.inputs, saveat=diffrax.SaveAt(ts=knots)).us
    axes = tuple(range(1, us.ndim))
    state, increment = (jnp.sqrt(jnp.mean(x**2, axes)) for x in (us, jnp.diff(us, axis=0)))
    curves = {"state": (knots, state), "increment": (knots[1:], increment)}
    title = "The state over depth, mean over tokens and features"
    look = dict(title=title, x="depth t (layers)", y="root mean square")
    plot_curves(folder.plots / "state_norm.png", curves, marker="o", **look)
