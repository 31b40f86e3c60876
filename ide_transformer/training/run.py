"""Runs: trained, and gone on with."""

import contextlib
import functools as ft
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..arguments import checked
from ..errors import GO_ON, InputError, at, naming, short
from ..memory import keep_freed_memory
from ..models import Model
from ..reporting import write_json
from ..tasks import AbstractTask, Batch, Part
from ..tasks.task import checksum_of_all
from .configuration.config import Config, TrainingConfig
from .configuration.files import apply_overrides, as_config
from .configuration.reader import read
from .configuration.section import validated
from .folder.checkpoints import Checkpoints
from .folder.loading import build_start, configuration_of
from .folder.metrics import (
    MetricsLog,
    NotFinite,
    TrainingProgress,
    cut_metrics,
    read_metrics,
    say,
    seconds_taken,
)
from .folder.run_folder import (
    RunFolder,
    check_origin,
    flat_values,
    folder_to_resume,
    new_folder,
    source,
    unfinished_twin,
)
from .steps import layout as parallel
from .steps.layout import Layout, make_layout
from .steps.schedule import Program, Programs, needed_by_refinement, programs_of, schedule_of
from .steps.sizes import check_divisible, describe_memory
from .steps.step import (
    TrainState,
    better_solve,
    num_parameters,
    objective,
    rolled_back,
    weights_of,
)
from .stopping import Stopped, StopRequest, stop_requests
from .trackers import AbstractTracker, InBackground, JsonLines


T = TypeVar("T")

EVALUATION_BATCH = 64
# A phase with its programs compiled: the entrance to it and the step of each mesh.
_Compiled = tuple[Program, Any, list[Any]]
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
    """Trains in a folder that exists, or in a new one."""
    parallel.start(config.parallel)
    keep_freed_memory()
    began = time.perf_counter()
    if resumed is not None:
        config = configuration_of(resumed, config, restart=restart)
    training = config.training
    trackers: list[AbstractTracker] = [
        read(AbstractTracker, tree, "training.trackers") for tree in training.trackers
    ]
    layout = make_layout(config.parallel)
    begins = config.model.run is None or resumed is None or resumed.newest_step is None
    if resumed is None and (needed := needed_by_refinement(config)):
        say(
            f"training.schedule: a coarse mesh first also needs {' '.join(needed)}. Without "
            "the projected input and the transport cost it lost 0.074 nats on a text "
            "(docs/results/coarse_first.md)."
        )
    say(f"{config.name}: reading the data, data.name={short(config.data.name)}")
    task, model, key, start = build_start(config, None if begins else resumed)
    # What does not fit together fails here, before anything is written.
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
        for key, model_on, batch in zip(program.phase.meshes, maps, batches, strict=True):
            with at(key) if training.schedule else contextlib.nullcontext():
                eqx.filter_eval_shape(loss, model_on(program.model), batch)
    data = task.fingerprint()
    if resumed is not None:
        check_origin(resumed, task, data, start if resumed.newest_step is None else None)
    values = {key: x for key, x in flat_values(config).items() if key not in _OF_A_PROCESS}
    parallel.check_equal(
        {
            "another configuration": values,
            "other data": {"checksum": data},
            "another version": {"version": f"{source(config)}, jax {jax.__version__}"},
        }
    )
    primary, folder = parallel.primary(), resumed
    if folder is None and primary:
        twin = unfinished_twin(config, runs)
        folder = new_folder(config, runs, task.save, data, start)
        if twin is not None:
            say(
                f"{twin.path} is not finished (step {twin.newest_step or 0} of "
                f"{training.steps}), and --resume would go on with it; this is a new run, "
                f"{folder.path}."
            )
    folder = RunFolder(parallel.from_primary("" if folder is None else str(folder.path)))
    with folder.sole_use() if primary else contextlib.nullcontext():
        with stop_requests() as stop, Checkpoints(folder, config, writes=True) as checkpoints:
            # It goes on from its last checkpoint, if it has one.
            if checkpoints.newest() is not None:
                state = checkpoints.restore(programs.shapes_at)
                checkpoints.set_damaged_aside()
            began -= seconds_taken(folder)
            parallel.wait_for_all("restored")
            if jax.process_count() > 1:
                # Before they are placed on the devices.
                own = {"step": int(state.step), "checksum": checksum_of_all(state)}
                parallel.check_equal({"another state": own})
            if int(state.step) == training.steps and folder.summary.exists():
                return folder  # nothing is left to do
            if primary:
                folder.go_on_by(config)
                folder.add_source(source(config))
            logged = cut_metrics(folder.metrics, start := int(state.step), checkpoints.losses)
            if resumed is not None:
                again = f"; steps {start + 1} to {logged} are made again" * (logged > start)
                begun = "going on from" if start else "no checkpoint yet: it begins again at"
                say(f"{folder.path}: {begun} step {start}{again}")
            of_run = config, task, folder, checkpoints, stop, programs, layout, began, trackers
            loop = Loop(*of_run)
            with jax.set_mesh(layout.grid):
                state = loop.run(layout.placed(state))
                say(f"evaluating the {' and the '.join(task.parts)} part")
                unevaluated = f"Stopped after the last step, before its evaluation; {GO_ON}."
                check = ft.partial(stop.check, unevaluated)
                held_out = loop.evaluated(programs[-1], state, task.parts, check=check)
                loop.check_finite(held_out)
            state = parallel.gathered(state)
        if primary:
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


class Diverged(InputError):
    """The loss of a run did not stay finite, also after going back to a checkpoint, or is not
    at its end."""


class Loop(NamedTuple):
    """The training loop of a run by its `programs`, which asks `stop` after each step."""

    config: Config
    task: AbstractTask
    folder: RunFolder
    checkpoints: Checkpoints
    stop: StopRequest
    programs: Programs
    layout: Layout
    began: float
    trackers: Sequence[AbstractTracker] = ()

    def run(self, state: TrainState) -> TrainState:
        """Trains from a state to the last step. It waits for the device at evaluations and
        checkpoints only, and otherwise for the step before the one in progress. Where too many
        steps are not finite, it goes back to the last checkpoint once."""
        steps, start = self.config.training.steps, int(state.step)
        with TrainingProgress(steps, start) as progress:
            given, done = self.config.model, ""
            if given.run is not None and not start:
                done = f", with the weights of {given.run} (checkpoint {given.checkpoint})"
            progress.say(f"{self.folder.path}: {num_parameters(state):,} parameters{done}")
            compiled = self._compiled(start, progress) if start < steps else []
            while True:
                rollbacks = int(state.faults.rollbacks)
                try:
                    return self._march(compiled, state, progress)
                except NotFinite as fault:
                    state = self._last_good(rollbacks, fault)
                    progress.say(
                        f"warning: {fault}; going back to step {int(state.step)}, "
                        "from there with other batches. This is done once."
                    )

    def _march(
        self, compiled: Sequence[_Compiled], state: TrainState, progress: TrainingProgress
    ) -> TrainState:
        """Takes the steps that are left."""
        training, start = self.config.training, int(state.step)
        # After a rollback the batches are those of the next seed.
        seed = training.seed + int(state.faults.rollbacks)
        trackers = self._started(start, progress) if parallel.primary() else []
        # Where every step is bad, nothing was learned, however few there are.
        most_bad = min(training.max_bad_steps, training.steps)
        log = MetricsLog(trackers, progress.show, self.began, most_bad)
        numbers = range(start + 1, training.steps + 1)
        batches = prefetched(self._batches(seed), numbers.start, numbers.stop)
        before: dict[str, Any] = {}
        with contextlib.closing(log), batches as made:
            if start and start not in self.checkpoints.losses:
                # It was stopped before the evaluation that is due here.
                self._evaluate_if_due(self.programs.at(start), start, state, log)
            log.restart_clock()
            for number, (mesh, batch, tokens) in zip(numbers, made, strict=True):
                program, enter, steps = next(x for x in compiled if number <= x[0].phase.last)
                phase = program.phase
                if number == phase.first + 1 > 1:
                    progress.say(f"step {phase.first}: from here on {phase}")
                    state = state if enter is None else enter(state)
                state, metrics = steps[mesh](state, batch)
                log.count(tokens)
                # So few steps are on their way that a request to stop is soon obeyed.
                jax.block_until_ready(before)
                before, last = metrics, number == training.steps
                self.stop.agree()
                if number % training.log_every == 0 or last:
                    log.train(number, metrics)
                lowest = not self.stop.made and self._evaluate_if_due(
                    program, number, state, log
                )
                due = number % training.checkpoint_every == 0 or lowest
                if due or last or self.stop.made:
                    log.keep()
                    jax.block_until_ready(metrics)
                    self.stop.step_ended()
                    if last or not int(state.faults.in_a_row):
                        self.checkpoints.save(number, state)
                    log.restart_clock()
                self.stop.check(f"Stopped after step {number}; {GO_ON}.")
        return state

    def _batches(self, seed: int) -> Callable[[int], tuple[int, Batch, int]]:
        """The mesh, the batch and its tokens of each step; the first one is step 1."""
        training, size = self.config.training, self.config.training.batch_size
        schedule = schedule_of(self.config)
        tasks = {phase.first: phase.tasks(self.task) for phase in schedule}

        def make(number: int) -> tuple[int, Batch, int]:
            mesh = schedule.drawn(training.seed, number - 1)
            task = tasks[schedule.at(number).first][mesh]
            batch = self.layout.load(task, number - 1, size, seed)
            return mesh, batch, size * task.tokens_per_sample

        return make

    def _started(self, step: int, progress: TrainingProgress) -> list[AbstractTracker]:
        """The trackers of a run that goes on after a step."""
        others = [InBackground(tracker, progress.say) for tracker in self.trackers]
        trackers = [JsonLines(self.folder.metrics), *others]
        values = flat_values(self.config) if others else {}
        for tracker in trackers:
            tracker.start(self.folder.path, values, step)
        return trackers

    def _compiled(self, start: int, progress: TrainingProgress) -> list[_Compiled]:
        """The phases after step `start` with their programs; says what they need of memory."""
        left = [program for program in self.programs if program.phase.last > start]
        compiled: list[_Compiled] = []
        # Phases with the same layers share the step of a mesh.
        made: dict[tuple[int, str], Any] = {}
        temporary = 0
        for program in left:
            steps: list[Any] = []
            batches = program.first_batches(self.task)
            for number, mesh in enumerate(program.phase.meshes.values()):
                of = program.phase.layers, str(mesh.described)
                if of not in made:
                    on = f" on {program.phase.name(number)}" * bool(
                        self.config.training.schedule
                    )
                    progress.say(f"compiling the step{on}")
                    lowered = program.lowered(
                        number, self.task.loss, self.layout, batches[number]
                    )
                    made[of] = lowered.compile()
                    needed = made[of].memory_analysis().temp_size_in_bytes
                    temporary = max(temporary, needed)
                    after = f" after {start}" * (start > 0)
                    self.stop.check(f"Stopped before the first step{after}; {GO_ON}.")
                steps.append(made[of])
            enter = program.enter
            if enter is not None and program.phase.first >= start:
                enter = jax.jit(enter, out_shardings=self.layout.shardings(program.shapes))
                before = self.layout.shapes(self.programs.shapes_at(program.phase.first))
                enter = enter.lower(before).compile()
            compiled.append((program, enter, steps))
        model = left[-1].model
        shapes = left[-1].shapes
        training = self.config.training
        data, *_ = left[-1].phase.tasks(self.task)
        part = data.batch(0, training.part_size, training.seed)
        progress.say(describe_memory(model, shapes, self.task.loss, part, temporary))
        if self.layout.grid.size > 1:
            progress.say(self.layout.described(shapes))
        return compiled

    def evaluated(
        self,
        program: Program,
        state: TrainState,
        parts: Sequence[Part],
        samples: int | None = None,
        *,
        check: Callable[[], None],
    ) -> dict[str, float]:
        """The figures of held-out samples with the weights and, if there is one, their average;
        `check` is called between batches."""
        decay, found = self.config.training.average, {}
        for which in ("trained", "average") if decay else ("trained",):
            suffix = "" if which == "trained" else "_of_average"
            weights = weights_of(state, which, decay)
            for part in parts:
                of_part = EVALUATION_BATCH, samples, part, check, self.layout.placed_batch
                values = program.evaluate(weights, self.task, *of_part)
                found |= {f"{name}{suffix}": value for name, value in values.items()}
        return found

    def check_finite(self, held_out: dict[str, float]) -> None:
        """`Diverged` where a loss at the end of the run is not finite."""
        losses = {name: x for name, x in held_out.items() if "_loss" in name}
        if wrong := {name: x for name, x in losses.items() if not math.isfinite(x)}:
            said = ", ".join(f"{name} {x}" for name, x in wrong.items())
            raise Diverged(
                f"{self.folder.path}: not finite at the end of the run: {said}. There is no "
                f"summary; checkpoint {self.checkpoints.newest()} is kept. Lower "
                f"optimizer.learning_rate, take {better_solve(self.programs[-1].model)}, or "
                "look for held-out samples that are much larger than those of training."
            )

    def _evaluate_if_due(
        self, program: Program, number: int, state: TrainState, log: MetricsLog
    ) -> bool:
        """Evaluates and logs where it is time; whether the loss is the lowest so far. A request
        to stop cuts it short; a run that goes on from here makes it up."""
        training = self.config.training
        if number % training.evaluate_every and number != training.steps:
            return False
        log.flush()
        samples, check = training.evaluate_samples, self.stop.check
        try:
            values = self.evaluated(program, state, ("validation",), samples, check=check)
        except Stopped:
            return False
        log.write({"step": number, **values})
        log.restart_clock()
        loss, before = values["validation_loss"], self.checkpoints.losses
        lowest = loss < min(filter(math.isfinite, before.values()), default=math.inf)
        before[number] = loss
        return lowest and training.keep_best

    def _last_good(self, rollbacks: int, fault: NotFinite) -> TrainState:
        """The state of the last checkpoint; `Diverged` where there is none, or once more."""
        newest = self.checkpoints.newest()
        if rollbacks or newest is None:
            before = "There is no checkpoint to go back to"
            if rollbacks:
                before = f"The run went back before; checkpoint {newest} is kept"
            better = better_solve(self.programs[0].model)
            raise Diverged(
                f"{fault}; stopped. {before}. Lower optimizer.learning_rate or "
                f"optimizer.clip, warm up longer, or take {better}; with "
                "training.gradient=reversible, also "
                "solver.options={coupling: 0.999} or training.gradient=recompute."
            )
        restored = self.checkpoints.restore(self.programs.shapes_at)
        state = self.layout.placed(rolled_back(restored, fault.bad_steps))
        cut_metrics(self.folder.metrics, int(state.step), self.checkpoints.losses)
        return state


@contextlib.contextmanager
def prefetched(
    make: Callable[[int], T], start: int, stop: int, *, ahead: int = 2
) -> Iterator[Iterator[T]]:
    """`make(start), make(start + 1), …, make(stop - 1)`, made by a thread at most `ahead` of
    them before they are asked for. An error is raised where its value is asked for."""
    thread = ThreadPoolExecutor(1, "prefetch")
    waiting: deque[Future[T]] = deque()

    def values() -> Iterator[T]:
        for number in range(start, stop + ahead):
            if number < stop:
                waiting.append(thread.submit(make, number))
            if number >= start + ahead:
                yield waiting.popleft().result()

    try:
        yield values()
    finally:
        thread.shutdown(cancel_futures=True)


def _write_results(loop: Loop, state: TrainState, held_out: dict[str, float]) -> None:
    training, task, folder = loop.config.training, loop.task, loop.folder
    weights = jax.tree.map(np.asarray, weights_of(state, "trained", training.average))
    model = eqx.combine(jax.tree.map(jnp.asarray, weights), loop.programs[-1].static)
    say("drawing the figures" + " and writing a sample" * bool(training.sample))
    plot_run(folder, task, model, training.begins[1:])
    evaluations, steps = float(state.evaluations), int(state.step)
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


def plot_run(
    folder: RunFolder, task: AbstractTask, model: Model, begins: Sequence[int] = ()
) -> None:
    """Plot the loss over the run, with a line where each further phase `begins`, and the size
    of the state and of what each layer adds to it over depth."""
    from ..figures import plot_curves

    lines = read_metrics(folder.metrics)
    losses = {}
    for name, key in (("training", "loss"), ("validation", "validation_loss")):
        logged = {line["step"]: line[key] for line in lines if line.get(key) is not None}
        losses[name] = [*logged], [*logged.values()]
    plot_curves(
        folder.plots / "loss.png",
        losses,
        title="Loss over the run",
        x="step",
        y=task.loss.label,
        marks=begins,
    )
    batch = next(task.held_out(EVALUATION_BATCH))
    knots = jnp.asarray(model.equation.knots)
    us = model.solve(batch.inputs, saveat=diffrax.SaveAt(ts=knots)).us
    axes = tuple(range(1, us.ndim))
    state, increment = (jnp.sqrt(jnp.mean(x**2, axes)) for x in (us, jnp.diff(us, axis=0)))
    plot_curves(
        folder.plots / "state_norm.png",
        {"state": (knots, state), "increment": (knots[1:], increment)},
        title="The state over depth, mean over tokens and features",
        x="depth t (layers)",
        y="root mean square",
        marker="o",
    )
