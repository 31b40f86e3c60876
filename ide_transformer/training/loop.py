"""The training loop of a run."""

import contextlib
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import jax

from ..errors import GO_ON, InputError
from ..tasks import AbstractTask, Batch, Part
from .configuration.config import Config
from .folder.checkpoints import Checkpoints
from .folder.metrics import MetricsLog, NotFinite, TrainingProgress, cut_metrics
from .folder.run_folder import RunFolder, flat_values
from .steps import layout as parallel
from .steps.layout import Layout
from .steps.schedule import Program, Programs, schedule_of
from .steps.sizes import describe_memory
from .steps.step import TrainState, better_solve, num_parameters, rolled_back, weights_of
from .stopping import Stopped, StopRequest
from .trackers import AbstractTracker, InBackground, JsonLines


T = TypeVar("T")

EVALUATION_BATCH = 64
# A phase with its programs compiled: the entrance to it and the step of each mesh.
_Compiled = tuple[Program, Any, list[Any]]


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
        steps = self.config.training.steps
        start = int(state.step)
        with TrainingProgress(steps, start) as progress:
            given = self.config.model
            done = ""
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
        training = self.config.training
        start = int(state.step)
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
                before = metrics
                last = number == training.steps
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
        training = self.config.training
        size = self.config.training.batch_size
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
        made: dict[tuple[int | None, str], Any] = {}
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
        decay = self.config.training.average
        found = {}
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
