"""The training loop."""

import contextlib
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import jax
import optax

from ..equation import divided_weights
from ..errors import GO_ON, InputError
from ..tasks import AbstractTask, Batch, Part
from .configuration.config import Config
from .folder.checkpoints import Checkpoints
from .folder.metrics import MetricsLog, NotFinite, TrainingProgress, cut_metrics
from .folder.run_folder import RunFolder, flat_values
from .steps import layout as parallel
from .steps.layout import Layout
from .steps.memory import describe_memory
from .steps.schedule import Program, Programs, Schedule
from .steps.step import TrainState, better_solve, rolled_back, weights_of
from .stopping import Stopped, StopRequest
from .trackers import AbstractTracker, Guarded, JsonLines


T = TypeVar("T")

# Compiled steps by the shapes of their batches.
_Steps = dict[tuple[tuple[int, ...], ...], Any]
# A phase with its compiled programs: the entrance to it, and the steps on each mesh.
_Compiled = tuple[Program, Any, list[_Steps]]


class Diverged(InputError):
    """The loss of a run is not finite, at its end or after it went back to a checkpoint."""


class Loop(NamedTuple):
    """The training loop of a run, which `began` at this reading of `time.perf_counter`."""

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
        """Trains to the last step. After too many bad steps it goes back, but only once."""
        steps = self.config.training.steps
        start = int(state.step)
        with TrainingProgress(steps, start) as progress:
            run = self.config.model.run
            origin = "" if run is None or start else f", with the weights of {run}"
            trained, frozen = map(optax.tree.size, divided_weights(state.weights))
            part = f", {trained:,} of them trained" if frozen else ""
            number = f"{trained + frozen:,} parameters"
            progress.say(f"{self.folder.path}: {number}{part}{origin}")
            compiled = self._compiled(start, progress) if start < steps else []
            while True:
                rollbacks = int(state.faults.rollbacks)
                try:
                    return self._march(compiled, state, progress)
                except NotFinite as fault:
                    state = self._last_good(rollbacks, fault)
                    progress.say(
                        f"warning: {fault}; going back to step {int(state.step)}, and on with "
                        "other batches. This is done once."
                    )

    def _march(
        self, compiled: Sequence[_Compiled], state: TrainState, progress: TrainingProgress
    ) -> TrainState:
        """Takes the remaining steps. Except at evaluations, the device is one step behind."""
        training = self.config.training
        start = int(state.step)
        # After a rollback the next seed draws other batches.
        seed = training.seed + int(state.faults.rollbacks)
        trackers: list[AbstractTracker] = []
        if parallel.primary():
            others = [Guarded(tracker, progress.say) for tracker in self.trackers]
            trackers = [JsonLines(self.folder.metrics), *others]
        for tracker in trackers:
            tracker.start(self.folder.path, flat_values(self.config), start)
        # A run whose steps are all bad has learned nothing, however short it is.
        most_bad = min(training.max_bad_steps, training.steps)
        log = MetricsLog(trackers, progress.show, self.began, most_bad)
        numbers = range(start + 1, training.steps + 1)
        batches = prefetched(self._batches(seed), numbers.start, numbers.stop)
        before: dict[str, Any] = {}
        with contextlib.closing(log), batches as made:
            if start and start not in self.checkpoints.losses:
                # The run was stopped before this evaluation.
                self._evaluate_if_due(self.programs.at(start), start, state, log)
            log.restart_clock()
            for number, (mesh, batch, tokens) in zip(numbers, made, strict=True):
                program, enter, steps = next(x for x in compiled if number <= x[0].phase.last)
                phase = program.phase
                if number == phase.first + 1 > 1:
                    progress.say(f"step {phase.first}: from here on {phase}")
                    state = state if enter is None else enter(state)
                state, metrics = steps[mesh][_shapes(batch)](state, batch)
                log.count(tokens)
                # With few steps on their way, a request to stop is soon obeyed.
                jax.block_until_ready(before)
                before = metrics
                last = number == training.steps
                self.stop.agree()
                if number % training.log_every == 0 or last:
                    log.train(number, metrics)
                due = number % training.checkpoint_every == 0
                if not self.stop.made:
                    due |= self._evaluate_if_due(program, number, state, log)
                if due or last or self.stop.made:
                    log.keep()
                    jax.block_until_ready(metrics)
                    if last or not int(state.faults.in_a_row):
                        self.checkpoints.save(number, state)
                    log.restart_clock()
                self.stop.check(f"Stopped after step {number}; {GO_ON}.")
        return state

    def _batches(self, seed: int) -> Callable[[int], tuple[int, Batch, int]]:
        """A function that gives the mesh, the batch and its tokens for a step, from step 1."""
        training = self.config.training
        size = training.batch_size
        schedule = Schedule(program.phase for program in self.programs)
        tasks = {phase.first: phase.tasks(self.task) for phase in schedule}

        def make(number: int) -> tuple[int, Batch, int]:
            mesh = schedule.drawn(training.seed, number - 1)
            task = tasks[schedule.at(number).first][mesh]
            batch = self.layout.load(task, number - 1, size, seed)
            return mesh, batch, size * task.tokens_per_sample

        return make

    def _compiled(self, start: int, progress: TrainingProgress) -> list[_Compiled]:
        """Compiles the programs of the phases after step `start`; reports their memory."""
        training = self.config.training
        left = [program for program in self.programs if program.phase.last > start]
        compiled: list[_Compiled] = []
        # Phases with the same layers share the step on a mesh.
        made: dict[tuple[int | None, str], _Steps] = {}
        temporary = 0
        for program in left:
            phase = program.phase
            steps: list[_Steps] = []
            meshes = zip(phase.meshes.values(), phase.tasks(self.task), strict=True)
            for number, (mesh, task) in enumerate(meshes):
                key = phase.layers, str(mesh.described)
                if key not in made:
                    batches = task.of_each_shape(training.batch_size, training.seed)
                    on = f" on {phase.name(number)}" if training.schedule else ""
                    each = f" for {len(batches)} lengths" if len(batches) > 1 else ""
                    progress.say(f"compiling the step{on}{each}")
                    made[key] = {}
                    for batch in batches:
                        lowered = program.lowered(number, self.task.loss, self.layout, batch)
                        step: Any = lowered.compile()
                        made[key][_shapes(batch)] = step
                        temporary = max(temporary, step.memory_analysis().temp_size_in_bytes)
                        after = f" after {start}" if start else ""
                        self.stop.check(f"Stopped before the first step{after}; {GO_ON}.")
                steps.append(made[key])
            enter = program.enter
            if enter is not None and phase.first >= start:
                enter = jax.jit(enter, out_shardings=self.layout.shardings(program.shapes))
                before = self.layout.shapes(self.programs.shapes_at(phase.first))
                enter = enter.lower(before).compile()
            compiled.append((program, enter, steps))
        last = left[-1]
        task, *_ = last.phase.tasks(self.task)
        part = task.of_each_shape(training.part_size, training.seed)[-1]
        progress.say(describe_memory(last.model, last.shapes, self.task.loss, part, temporary))
        if self.layout.grid.size > 1:
            sizes = [f"{axis} {size}" for axis, size in self.layout.sizes.items() if size > 1]
            each = f"{self.layout.bytes_each(last.shapes):,} bytes on each"
            progress.say(f"devices: {', '.join(sizes)}; the state takes {each}")
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
        """The figures of held-out samples, with the weights and with their average, if any."""
        decay = self.config.training.average
        found = {}
        for which in ("trained", "average") if decay else ("trained",):
            suffix = "" if which == "trained" else "_of_average"
            weights = weights_of(state, which, decay)
            for part in parts:
                values = program.evaluate(weights, self.task, part, samples, check, self.layout)
                found |= {f"{name}{suffix}": value for name, value in values.items()}
        return found

    def check_finite(self, held_out: dict[str, float]) -> None:
        """Raises `Diverged` if a loss at the end of the run is not finite."""
        model = self.programs[-1].model
        losses = {name: x for name, x in held_out.items() if "_loss" in name}
        if wrong := {name: x for name, x in losses.items() if not math.isfinite(x)}:
            said = ", ".join(f"{name} {x}" for name, x in wrong.items())
            what = f"{self.folder.path}: not finite at the end: {said}; checkpoints are kept"
            advice = f"Lower optimizer.learning_rate, or take {better_solve(model)}"
            raise Diverged(f"{what}. {advice}.")

    def _evaluate_if_due(
        self, program: Program, number: int, state: TrainState, log: MetricsLog
    ) -> bool:
        """Evaluates and logs at the steps of `training.evaluate_every`. Returns whether the
        loss is the lowest so far. After a request to stop, the resumed run evaluates."""
        training = self.config.training
        if number % training.evaluate_every and number != training.steps:
            return False
        log.flush()
        samples = training.evaluate_samples
        check = self.stop.check
        try:
            values = self.evaluated(program, state, ("validation",), samples, check=check)
        except Stopped:
            return False
        log.write({"step": number, **values})
        log.restart_clock()
        loss = values["validation_loss"]
        before = self.checkpoints.losses
        lowest = loss < min(filter(math.isfinite, before.values()), default=math.inf)
        before[number] = loss
        return lowest and training.keep_best

    def _last_good(self, rollbacks: int, fault: NotFinite) -> TrainState:
        """The state of the last checkpoint. Raises `Diverged` without one, or a second time."""
        if rollbacks or self.checkpoints.newest() is None:
            why = "it went back before" if rollbacks else "no checkpoint to go back to"
            advice = "Lower optimizer.learning_rate or optimizer.clip, warm up longer"
            better = better_solve(self.programs[0].model)
            raise Diverged(f"{fault}; {why}. {advice}, or take {better}.")
        restored = self.checkpoints.restore(self.programs.shapes_at)
        state = self.layout.placed(rolled_back(restored, fault.bad_steps))
        cut_metrics(self.folder.metrics, int(state.step), self.checkpoints.losses)
        return state


def _shapes(batch: Batch) -> tuple[tuple[int, ...], ...]:
    return tuple(x.shape for x in jax.tree.leaves(batch))


@contextlib.contextmanager
def prefetched(
    make: Callable[[int], T], start: int, stop: int, *, ahead: int = 2
) -> Iterator[Iterator[T]]:
    """Iterates over `make(start), …, make(stop - 1)`, which a thread makes at most `ahead` in
    advance. An error is raised where its value is asked for."""
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
