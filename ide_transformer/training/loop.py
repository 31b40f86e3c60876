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
from ..tasks import Batch, Part
from .folder.checkpoints import Checkpoints
from .folder.metrics import (
    MetricsLog,
    NotFinite,
    TrainingProgress,
    cut_metrics,
    say,
    seconds_taken,
)
from .folder.run_folder import RunFolder, flat_values
from .setup import Setup
from .steps import layout as parallel
from .steps.memory import describe_memory
from .steps.programs import Program
from .steps.step import TrainState, better_solve, rolled_back, weights_of
from .stopping import Stopped, StopRequest
from .trackers import AbstractTracker, Guarded, JsonLines


T = TypeVar("T")

# The compiled steps on a mesh, by the shapes of their batches.
Steps = dict[tuple[tuple[int, ...], ...], Any]


class CompiledPhase(NamedTuple):
    """A phase with its compiled programs: the entrance to it, and the steps on each mesh."""

    program: Program
    enter: Any
    steps: list[Steps]


class Diverged(InputError):
    """The loss of a run is not finite, at its end or after it went back to a checkpoint."""


class Loop:
    """The training loop of a run.

    - `began`: the reading of `time.perf_counter` at which the run would have begun, had it
      never stopped.
    """

    def __init__(
        self, setup: Setup, folder: RunFolder, checkpoints: Checkpoints, stop: StopRequest
    ):
        self.setup = setup
        self.folder = folder
        self.checkpoints = checkpoints
        self.stop = stop
        self.began = setup.began - seconds_taken(folder)

    def run(self, state: TrainState) -> TrainState:
        """Trains to the last step. After too many bad steps it goes back, but only once."""
        steps = self.setup.training.steps
        start = int(state.step)
        with TrainingProgress(steps, start) as progress:
            run = self.setup.config.model.run
            origin = "" if run is None or start else f", with the weights of {run}"
            trained, frozen = map(optax.tree.size, divided_weights(state.weights))
            part = f", {trained:,} of them trained" if frozen else ""
            number = f"{trained + frozen:,} parameters"
            progress.say(f"{self.folder.path}: {number}{part}{origin}")
            phases = self._compile_phases(start, progress) if start < steps else []
            while True:
                rollbacks = int(state.faults.rollbacks)
                try:
                    return self._march(phases, state, progress)
                except NotFinite as fault:
                    state = self._last_good(rollbacks, fault)
                    progress.say(
                        f"warning: {fault}; going back to step {int(state.step)}, and on with "
                        "other batches. This is done once."
                    )

    def _march(
        self, phases: Sequence[CompiledPhase], state: TrainState, progress: TrainingProgress
    ) -> TrainState:
        """Takes the remaining steps. Except at evaluations, the device is one step behind."""
        training = self.setup.training
        start = int(state.step)
        # After a rollback the next seed draws other batches.
        seed = training.seed + int(state.faults.rollbacks)
        log = self._start_log(start, progress)
        numbers = range(start + 1, training.steps + 1)
        batches = prefetched(self._batch_maker(seed), numbers.start, numbers.stop)
        previous: dict[str, Any] = {}
        with contextlib.closing(log), batches as prepared:
            if start and start not in self.checkpoints.losses:
                # The run was stopped before this evaluation.
                self._evaluate_if_due(self.setup.programs.at(start), start, state, log)
            log.restart_clock()
            for number, (mesh, batch, tokens) in zip(numbers, prepared, strict=True):
                program, enter, steps = next(
                    x for x in phases if number <= x.program.phase.last
                )
                phase = program.phase
                if number == phase.first + 1 > 1:
                    progress.say(f"step {phase.first}: from here on {phase}")
                    state = state if enter is None else enter(state)
                state, metrics = steps[mesh][_shapes(batch)](state, batch)
                log.count(tokens)
                # With few steps on their way, a request to stop is soon obeyed.
                jax.block_until_ready(previous)
                previous = metrics
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

    def _start_log(self, start: int, progress: TrainingProgress) -> MetricsLog:
        """The log of the steps after `start`, with its trackers started."""
        training = self.setup.training
        trackers: list[AbstractTracker] = []
        if parallel.primary():
            others = [Guarded(tracker, progress.say) for tracker in self.setup.trackers]
            trackers = [JsonLines(self.folder.metrics), *others]
        for tracker in trackers:
            tracker.start(self.folder.path, flat_values(self.setup.config), start)
        # A run whose steps are all bad has learned nothing, however short it is.
        most_bad = min(training.max_bad_steps, training.steps)
        return MetricsLog(trackers, progress.show, self.began, most_bad)

    def _batch_maker(self, seed: int) -> Callable[[int], tuple[int, Batch, int]]:
        """A function that gives the mesh, the batch and its tokens for a step, from step 1."""
        training = self.setup.training
        size = training.batch_size
        schedule = self.setup.programs.schedule
        tasks = {phase.first: phase.tasks(self.setup.task) for phase in schedule}

        def make(number: int) -> tuple[int, Batch, int]:
            mesh = schedule.drawn(training.seed, number - 1)
            task = tasks[schedule.at(number).first][mesh]
            batch = self.setup.layout.load(task, number - 1, size, seed)
            return mesh, batch, size * task.tokens_per_sample

        return make

    def _compile_phases(self, start: int, progress: TrainingProgress) -> list[CompiledPhase]:
        """Compiles the programs of the phases after step `start`; reports their memory."""
        setup = self.setup
        training = setup.training
        layout = setup.layout
        phases: list[CompiledPhase] = []
        # Phases with the same layers share the steps on a mesh.
        shared: dict[tuple[int | None, str], Steps] = {}
        for program in setup.programs:
            phase = program.phase
            if phase.last <= start:
                continue
            steps: list[Steps] = []
            meshes = zip(phase.meshes.values(), phase.tasks(setup.task), strict=True)
            for number, (mesh, task) in enumerate(meshes):
                key = phase.layers, str(mesh.described)
                if key not in shared:
                    batches = task.of_each_shape(training.batch_size, training.seed)
                    on = f" on {phase.name(number)}" if training.schedule else ""
                    each = f" for {len(batches)} lengths" if len(batches) > 1 else ""
                    progress.say(f"compiling the step{on}{each}")
                    shared[key] = self._compile_steps(program, number, batches, start)
                steps.append(shared[key])
            enter = program.enter
            if enter is not None and phase.first >= start:
                enter = jax.jit(enter, out_shardings=layout.shardings(program.shapes))
                before = layout.shapes(setup.programs.shapes_at(phase.first))
                enter = enter.lower(before).compile()
            phases.append(CompiledPhase(program, enter, steps))
        compiled = [step for steps in shared.values() for step in steps.values()]
        temporary = max(step.memory_analysis().temp_size_in_bytes for step in compiled)
        self._say_memory(phases[-1].program, temporary, progress)
        return phases

    def _compile_steps(
        self, program: Program, mesh: int, batches: Sequence[Batch], start: int
    ) -> Steps:
        """The compiled step of a phase on one of its meshes, for batches of each shape."""
        steps: Steps = {}
        after = f" after {start}" if start else ""
        for batch in batches:
            lowered = program.lower(mesh, self.setup.objective, self.setup.layout, batch)
            steps[_shapes(batch)] = lowered.compile()
            self.stop.check(f"Stopped before the first step{after}; {GO_ON}.")
        return steps

    def _say_memory(self, program: Program, temporary: int, progress: TrainingProgress) -> None:
        """Says what the last phase needs, whose step reserves `temporary` bytes."""
        setup = self.setup
        training = setup.training
        task, *_ = program.phase.tasks(setup.task)
        part = task.of_each_shape(training.part_size, training.seed)[-1]
        loss = setup.task.loss
        progress.say(describe_memory(program.model, program.shapes, loss, part, temporary))
        sizes = {axis: size for axis, size in setup.layout.sizes.items() if size > 1}
        if sizes:
            devices = ", ".join(f"{axis} {size}" for axis, size in sizes.items())
            each = f"{setup.layout.bytes_each(program.shapes):,} bytes on each"
            progress.say(f"devices: {devices}; the state takes {each}")

    def evaluate(
        self,
        program: Program,
        state: TrainState,
        parts: Sequence[Part],
        samples: int | None = None,
        *,
        check: Callable[[], None],
    ) -> dict[str, float]:
        """The figures of held-out samples, with the weights and with their average, if any.
        `check` is called between batches and may raise."""
        setup = self.setup
        decay = setup.training.average
        figures = {}
        for which in ("trained", "average") if decay else ("trained",):
            suffix = "" if which == "trained" else "_of_average"
            weights = weights_of(state, which, decay)
            for part in parts:
                values = program.evaluate(
                    weights, setup.task, part, samples, check, setup.layout
                )
                figures |= {f"{name}{suffix}": value for name, value in values.items()}
        return figures

    def evaluate_at_end(self, state: TrainState) -> dict[str, float]:
        """The figures of all held-out samples. Raises `Diverged` if a loss is not finite."""
        last = self.setup.programs[-1]
        parts = self.setup.task.parts
        say(f"evaluating the {' and the '.join(parts)} part")
        message = f"Stopped after the last step, before its evaluation; {GO_ON}."
        figures = self.evaluate(last, state, parts, check=lambda: self.stop.check(message))
        losses = {name: x for name, x in figures.items() if "_loss" in name}
        if wrong := [f"{name} {x}" for name, x in losses.items() if not math.isfinite(x)]:
            raise Diverged(
                f"{self.folder.path}: not finite at the end: {', '.join(wrong)}; checkpoints "
                "are kept. Lower optimizer.learning_rate, or use "
                f"{better_solve(last.model)}."
            )
        return figures

    def _evaluate_if_due(
        self, program: Program, number: int, state: TrainState, log: MetricsLog
    ) -> bool:
        """Evaluates and logs at the steps of `training.evaluate_every`. Returns whether the
        loss is the lowest so far. After a request to stop, the resumed run evaluates."""
        training = self.setup.training
        if number % training.evaluate_every and number != training.steps:
            return False
        log.flush()
        samples = training.evaluate_samples
        try:
            values = self.evaluate(
                program, state, ("validation",), samples, check=self.stop.check
            )
        except Stopped:
            return False
        log.write({"step": number, **values})
        log.restart_clock()
        loss = values["validation_loss"]
        losses = self.checkpoints.losses
        lowest = loss < min(filter(math.isfinite, losses.values()), default=math.inf)
        losses[number] = loss
        return lowest and training.keep_best

    def _last_good(self, rollbacks: int, fault: NotFinite) -> TrainState:
        """The state of the last checkpoint. Raises `Diverged` without one, or a second time."""
        setup = self.setup
        if rollbacks or self.checkpoints.newest() is None:
            why = "it went back before" if rollbacks else "no checkpoint to go back to"
            raise Diverged(
                f"{fault}; {why}. Lower optimizer.learning_rate or optimizer.clip, warm up "
                f"longer, or use {better_solve(setup.programs[0].model)}."
            )
        state = self.checkpoints.restore(setup.programs.shapes_at)
        state = setup.layout.placed(rolled_back(state, fault.bad_steps))
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
