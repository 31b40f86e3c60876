"""The training loop."""

import contextlib
import functools as ft
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import jax

from ..errors import InputError
from ..tasks import AbstractTask, Batch, Part
from .checkpoints import Checkpoints
from .config import Config
from .folder import RunFolder, flat_values
from .meshes import drawn_mesh, first_batches, mesh_tasks
from .metrics import MetricsLog, NotFinite, TrainingProgress, cut_metrics
from .parallel import Layout
from .phases import Phase, phase_at, shapes_at
from .processes import primary
from .sizes import describe_memory
from .step import TrainState, num_parameters, rolled_back, weights_of
from .stopping import Stopped, StopRequest
from .trackers import AbstractTracker, InBackground, JsonLines


T = TypeVar("T")

EVALUATION_BATCH = 64


class Diverged(InputError):
    """The loss of a run did not stay finite, also after going back to a checkpoint."""


class _Compiled(NamedTuple):
    """A phase, and its programs: the entrance to it and the step of each mesh."""

    phase: Phase
    enter: Any
    steps: list[Any]


class Loop(NamedTuple):
    """The training loop of a run.

    - `stop`: asked after each step.
    - `phases`: one after the other; a run that is not refined has one.
    - `began`: see `MetricsLog`.
    - `trackers`: besides `metrics.jsonl`.
    """

    config: Config
    task: AbstractTask
    folder: RunFolder
    checkpoints: Checkpoints
    stop: StopRequest
    phases: Sequence[Phase]
    layout: Layout
    began: float
    trackers: Sequence[AbstractTracker] = ()

    def run(self, state: TrainState) -> TrainState:
        """Trains from a state to the last step. It waits for the device at evaluations and
        checkpoints only, and otherwise for the step before the one in progress. Where too many
        steps are not finite, it goes back to the last checkpoint once.

        **Raises:** `Stopped` on request, after saving a checkpoint; `Diverged` where going
        back does not help or is not possible.
        """
        steps, start = self.config.training.steps, int(state.step)
        with TrainingProgress(steps, start) as progress:
            done = f", going on from step {start}" if start else ""
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
        trackers = self._started(start, progress) if primary() else []
        log = MetricsLog(trackers, progress.show, self.began, training.max_bad_steps)
        numbers = range(start + 1, training.steps + 1)
        batches = prefetched(self._batches(seed), numbers.start, numbers.stop)
        before: dict[str, Any] = {}
        with contextlib.closing(log), batches as made:
            if start and start not in self.checkpoints.losses:
                # It was stopped before the evaluation that is due here.
                self._evaluate_if_due(phase_at(self.phases, start), start, state, log)
            log.restart_clock()
            for number, (mesh, batch, tokens) in zip(numbers, made, strict=True):
                phase, enter, steps = next(x for x in compiled if number <= x.phase.last)
                if number == phase.first + 1 > 1:
                    intervals = phase.model.control.num_intervals
                    progress.say(f"step {phase.first}: refined to {intervals} intervals")
                    state = enter(state)
                state, metrics = steps[mesh](state, batch)
                log.count(tokens)
                # So few steps are on their way that a request to stop is soon obeyed.
                jax.block_until_ready(before)
                before, last = metrics, number == training.steps
                self.stop.agree()
                if number % training.log_every == 0 or last:
                    log.train(number, metrics)
                lowest = not self.stop.made and self._evaluate_if_due(phase, number, state, log)
                due = number % training.checkpoint_every == 0 or lowest
                if due or last or self.stop.made:
                    log.keep()
                    jax.block_until_ready(metrics)
                    self.stop.step_ended()
                    if last or not int(state.faults.in_a_row):
                        self.checkpoints.save(number, state)
                    log.restart_clock()
                self.stop.check(f"Stopped after step {number}; go on with --resume.")
        return state

    def _batches(self, seed: int) -> Callable[[int], tuple[int, Batch, int]]:
        """The mesh, the batch and its tokens of each step; the first one is step 1."""
        training = self.config.training
        tasks, size = mesh_tasks(training, self.task), training.batch_size

        def make(number: int) -> tuple[int, Batch, int]:
            mesh = drawn_mesh(training, number - 1)
            batch = self.layout.load(tasks[mesh], number - 1, size, seed)
            return mesh, batch, size * tasks[mesh].tokens_per_sample

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
        batches = first_batches(self.config.training, self.task)
        left = [phase for phase in self.phases if phase.last > start]
        compiled, number, temporary = [], 0, 0
        for phase in left:
            steps: list[Any] = []
            for lowered in phase.lowered(self.task.loss, self.layout, batches):
                number += 1
                if len(left) * len(batches) > 1:
                    of = len(left) * len(batches)
                    progress.say(f"compiling the step of mesh {number} of {of}")
                steps.append(lowered.compile())
                needed = steps[-1].memory_analysis().temp_size_in_bytes
                temporary = max(temporary, needed)
                self.stop.check("Stopped before the first step.")
            enter = phase.enter
            if 0 < phase.first >= start:
                enter = jax.jit(enter, out_shardings=self.layout.shardings(phase.shapes))
                before = self.layout.shapes(shapes_at(self.phases, phase.first))
                enter = enter.lower(before).compile()
            compiled.append(_Compiled(phase, enter, steps))
        model, shapes = left[-1].model, left[-1].shapes
        progress.say(describe_memory(model, shapes, self.task.loss, batches[0], temporary))
        if self.layout.grid.size > 1:
            progress.say(self.layout.described(shapes))
        return compiled

    def evaluated(
        self,
        phase: Phase,
        state: TrainState,
        parts: Sequence[Part],
        samples: int | None = None,
        *,
        check: Callable[[], None],
    ) -> dict[str, float]:
        """The figures of held-out samples with the weights and, if there is one, their average;
        `check` is called between batches and may raise."""
        decay, found = self.config.training.average, {}
        for which in ("trained", "average") if decay else ("trained",):
            suffix = "" if which == "trained" else "_of_average"
            weights = weights_of(state, which, decay)
            for part in parts:
                values = phase.evaluate(
                    weights,
                    self.task,
                    EVALUATION_BATCH,
                    samples,
                    part,
                    check,
                    self.layout.batch,
                )
                found |= {f"{name}{suffix}": value for name, value in values.items()}
        return found

    def _evaluate_if_due(
        self, phase: Phase, number: int, state: TrainState, log: MetricsLog
    ) -> bool:
        """Evaluates and logs where it is time; whether the loss is then the lowest so far. A
        request to stop cuts it short; a run that goes on from here makes it up."""
        training = self.config.training
        if number % training.evaluate_every:
            return False
        log.flush()
        samples, check = training.evaluate_samples, self.stop.check
        try:
            values = self.evaluated(phase, state, ("validation",), samples, check=check)
        except Stopped:
            return False
        log.write({"step": number, **values})
        log.restart_clock()
        loss, before = values["validation_loss"], self.checkpoints.losses
        lowest = loss < min(filter(math.isfinite, before.values()), default=math.inf)
        before[number] = loss
        return lowest and training.keep_best

    def _last_good(self, rollbacks: int, fault: NotFinite) -> TrainState:
        """The state of the last checkpoint, from which the run goes on; `Diverged` where there
        is none, or the run has gone back before."""
        newest = self.checkpoints.newest()
        if rollbacks or newest is None:
            before = "There is no checkpoint to go back to"
            if rollbacks:
                before = f"The run went back before; checkpoint {newest} is kept"
            raise Diverged(
                f"{fault}; stopped. {before}. Lower optimizer.learning_rate or "
                "optimizer.clip, warm up longer, or take smaller steps in depth "
                "(solver.steps_per_interval); with training.gradient=reversible, also "
                "solver.options={coupling: 0.999} or training.gradient=recompute. "
                f"{self.folder.metrics} has the losses and norms up to there."
            )
        shapes = ft.partial(shapes_at, self.phases)
        state = self.layout.placed(rolled_back(self.checkpoints.restore(shapes)))
        cut_metrics(self.folder.metrics, int(state.step), self.checkpoints.losses)
        return state


@contextlib.contextmanager
def prefetched(
    make: Callable[[int], T], start: int, stop: int, *, ahead: int = 2
) -> Iterator[Iterator[T]]:
    """`make(start), make(start + 1), …, make(stop - 1)`, made by a thread at most `ahead` of
    them before they are asked for. An error is raised where its value is asked for.

        with prefetched(lambda step: task.batch(step, size, seed), start, steps) as batches:
            for batch in batches: …
    """
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
