"""The training loop."""

import contextlib
import dataclasses
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import jax
import optax

from ..equation import partition_weights
from ..errors import InputError
from ..tasks import Batch, Part
from .folder.checkpoints import Checkpoints
from .folder.metrics import MetricsLog, NotFinite, TrainingProgress, cut_metrics, say
from .folder.run_folder import RunFolder, flat_values
from .setup import Setup
from .steps.memory import describe_memory
from .steps.phases import Phase
from .steps.schedule import ScheduledMesh, mesh_drawer
from .steps.step import TrainState, Weights, better_solve, roll_back, weights_of
from .stopping import Stopped, StopRequest


T = TypeVar("T")

# The compiled steps on a mesh, by the shapes of their batches.
Steps = dict[tuple[tuple[int, ...], ...], Any]


class Programs(NamedTuple):
    """The compiled programs of a run.

    - `entrances`: the entrances to the phases, by the number of steps before.
    - `steps`: the steps on each mesh.
    """

    entrances: dict[int, Any]
    steps: dict[ScheduledMesh, Steps]


class Diverged(InputError):
    """The loss of a run is not finite, at its end or after it went back to a checkpoint."""


@dataclasses.dataclass(frozen=True)
class Loop:
    """The training loop of a run.

    - `began`: the reading of `time.perf_counter` at which the run would have begun, had it
      never stopped.
    """

    setup: Setup
    folder: RunFolder
    checkpoints: Checkpoints
    stop: StopRequest
    began: float

    def run(self, state: TrainState) -> TrainState:
        """Trains to the last step. After too many bad steps it goes back, but only once."""
        steps = self.setup.training.steps
        start = int(state.step)
        run = self.setup.config.model.run
        origin = "" if run is None or start else f", with the weights of {run}"
        trained, frozen = map(optax.tree.size, partition_weights(state.weights))
        part = f", {trained:,} of them trained" if frozen else ""
        say(f"{self.folder.path}: {trained + frozen:,} parameters{part}{origin}")
        with TrainingProgress(steps, start) as progress:
            programs = self._compile(start)
            while True:
                rollbacks = int(state.faults.rollbacks)
                try:
                    return self._march(programs, state, progress)
                except NotFinite as fault:
                    state = self._last_good(rollbacks, fault)
                    say(
                        f"warning: {fault}; going back to step {int(state.step)}, and on with "
                        "other batches. This is done once."
                    )

    def _march(
        self, programs: Programs, state: TrainState, progress: TrainingProgress
    ) -> TrainState:
        """Takes the remaining steps. Except at evaluations, the device is one step behind."""
        training = self.setup.training
        start = int(state.step)
        # After a rollback the next seed draws other batches.
        seed = training.seed + int(state.faults.rollbacks)
        # A run whose steps are all bad has learned nothing, however short it is.
        most_bad = min(training.max_bad_steps, training.steps)
        log = MetricsLog(self.folder, self.setup.trackers, progress, self.began, most_bad)
        log.start(flat_values(self.setup.config), start)
        steps = range(start + 1, training.steps + 1)
        previous: dict[str, Any] = {}
        prefetching = prefetch(self._batch_maker(seed), steps)
        with contextlib.closing(log), prefetching as batches:
            if start and start not in self.checkpoints.losses:
                # The run was stopped before this evaluation.
                self._evaluate_if_due(start, state, log)
            log.restart_clock()
            for step, (mesh, batch, tokens) in zip(steps, batches, strict=True):
                phase = self.setup.phases.at(step)
                if step == phase.first + 1 > 1:
                    say(f"step {phase.first}: from here on {phase}")
                    enter = programs.entrances.get(phase.first)
                    state = state if enter is None else enter(state)
                state, metrics = programs.steps[mesh][_shapes(batch)](state, batch)
                log.count_tokens(tokens)
                # With few steps on their way, a request to stop is soon obeyed.
                jax.block_until_ready(previous)
                previous = metrics
                is_last = step == training.steps
                self.stop.agree()
                if step % training.log_every == 0 or is_last:
                    log.log_step(step, metrics)
                is_due = step % training.checkpoint_every == 0
                if not self.stop.requested:
                    is_due |= self._evaluate_if_due(step, state, log)
                if is_due or is_last or self.stop.requested:
                    log.store()
                    jax.block_until_ready(metrics)
                    if is_last or not int(state.faults.in_a_row):
                        self.checkpoints.save(step, state)
                    log.restart_clock()
                self.stop.check(f" after step {step}")
        return state

    def _batch_maker(self, seed: int) -> Callable[[int], tuple[ScheduledMesh, Batch, int]]:
        """Returns a function of a step, from 1: its mesh, its batch and their tokens."""
        setup = self.setup
        size = setup.training.batch_size
        meshes = [mesh for phase in setup.phases for mesh in phase.meshes]
        tasks = {mesh: mesh.adapt_task(setup.task) for mesh in meshes}
        draw_mesh = mesh_drawer(setup.config)

        def make_batch(step: int) -> tuple[ScheduledMesh, Batch, int]:
            mesh = draw_mesh(step - 1)
            task = tasks[mesh]
            batch = setup.layout.load(task, step - 1, size, seed)
            return mesh, batch, size * task.tokens_per_sample

        return make_batch

    def _compile(self, start: int) -> Programs:
        """Compiles the programs of the phases after step `start`; reports their memory."""
        setup = self.setup
        layout = setup.layout
        programs = Programs({}, {})
        for phase in setup.phases:
            if phase.last <= start:
                continue
            for mesh in phase.meshes:
                if mesh not in programs.steps:
                    programs.steps[mesh] = self._compile_steps(phase, mesh)
            if phase.enter is not None and phase.first >= start:
                enter = jax.jit(phase.enter, out_shardings=layout.shardings(phase.shapes))
                before = layout.shapes(setup.phases.shapes_at(phase.first))
                programs.entrances[phase.first] = enter.lower(before).compile()
        compiled = [step for steps in programs.steps.values() for step in steps.values()]
        if compiled:
            temporary = max(step.memory_analysis().temp_size_in_bytes for step in compiled)
            self._say_memory(setup.phases[-1], temporary)
        return programs

    def _compile_steps(self, phase: Phase, mesh: ScheduledMesh) -> Steps:
        """Compiles the step of a phase on one of its meshes, for batches of each shape."""
        setup = self.setup
        training = setup.training
        batches = mesh.adapt_task(setup.task).of_each_shape(training.batch_size, training.seed)
        on_mesh = f" on {mesh}" if training.schedule else ""
        lengths = f" for {len(batches)} lengths" if len(batches) > 1 else ""
        say(f"compiling the step{on_mesh}{lengths}")
        steps: Steps = {}
        for batch in batches:
            lowered = phase.lower(mesh, setup.objective, setup.layout, batch)
            steps[_shapes(batch)] = lowered.compile()
            self.stop.check()
        return steps

    def _say_memory(self, phase: Phase, temporary: int) -> None:
        """Says what the last phase needs, whose step reserves `temporary` bytes."""
        setup = self.setup
        training = setup.training
        task = phase.meshes[0].adapt_task(setup.task)
        part = task.of_each_shape(training.part_size, training.seed)[-1]
        loss = setup.task.loss
        say(describe_memory(phase.model, phase.shapes, loss, part, temporary))
        devices = [f"{axis} {size}" for axis, size in setup.layout.sizes.items() if size > 1]
        if devices:
            size = setup.layout.bytes_each(phase.shapes)
            say(f"devices: {', '.join(devices)}; the state takes {size:,} bytes on each")

    def evaluate(
        self, phase: Phase, state: TrainState, parts: Sequence[Part], samples: int | None = None
    ) -> dict[str, float]:
        """The figures of held-out samples, with the weights and with their average, if any.
        Raises `Stopped` after a request to stop."""
        setup = self.setup
        decay = setup.training.average
        suffixes: dict[Weights, str] = {"trained": ""}
        if decay:
            suffixes["average"] = "_of_average"
        figures = {}
        for kind, suffix in suffixes.items():
            weights = weights_of(state, kind, decay)
            for part in parts:
                values = phase.evaluate(
                    weights, setup.task, part, samples, self.stop.check, setup.layout
                )
                figures |= {f"{name}{suffix}": value for name, value in values.items()}
        return figures

    def evaluate_at_end(self, state: TrainState) -> dict[str, float]:
        """The figures of all held-out samples. Raises `Diverged` if a loss is not finite."""
        last = self.setup.phases[-1]
        parts = self.setup.task.parts
        say(f"evaluating the {' and the '.join(parts)} part")
        figures = self.evaluate(last, state, parts)
        losses = {name: x for name, x in figures.items() if "_loss" in name}
        if wrong := [f"{name} {x}" for name, x in losses.items() if not math.isfinite(x)]:
            raise Diverged(
                f"{self.folder.path}: not finite at the end: {', '.join(wrong)}; checkpoints "
                "are kept. Lower optimizer.learning_rate, or use "
                f"{better_solve(last.model)}."
            )
        return figures

    def _evaluate_if_due(self, step: int, state: TrainState, log: MetricsLog) -> bool:
        """Evaluates and logs at the steps of `training.evaluate_every`. Returns whether the
        loss is the lowest so far. After a request to stop, the resumed run evaluates."""
        training = self.setup.training
        if step % training.evaluate_every and step != training.steps:
            return False
        log.flush()
        phase = self.setup.phases.at(step)
        try:
            figures = self.evaluate(phase, state, ("validation",), training.evaluate_samples)
        except Stopped:
            return False
        log.write_line({"step": step, **figures})
        log.restart_clock()
        loss = figures["validation_loss"]
        losses = self.checkpoints.losses
        is_lowest = loss < min(filter(math.isfinite, losses.values()), default=math.inf)
        losses[step] = loss
        return is_lowest and training.keep_best

    def _last_good(self, rollbacks: int, fault: NotFinite) -> TrainState:
        """The state of the last checkpoint. Raises `Diverged` without one, or a second time."""
        setup = self.setup
        if rollbacks or self.checkpoints.newest() is None:
            reason = "it went back before" if rollbacks else "no checkpoint to go back to"
            raise Diverged(
                f"{fault}; {reason}. Lower optimizer.learning_rate or optimizer.clip, warm up "
                f"longer, or use {better_solve(setup.phases[0].model)}."
            )
        state = self.checkpoints.restore(setup.phases.shapes_at)
        state = setup.layout.place(roll_back(state, fault.bad_steps))
        cut_metrics(self.folder.metrics, int(state.step), self.checkpoints.losses)
        return state


def _shapes(batch: Batch) -> tuple[tuple[int, ...], ...]:
    return tuple(x.shape for x in jax.tree.leaves(batch))


@contextlib.contextmanager
def prefetch(
    make: Callable[[int], T], steps: range, *, ahead: int = 2
) -> Iterator[Iterator[T]]:
    """Iterates over `make(step)` for all `steps`, which a thread makes at most `ahead` in
    advance. An error is raised where its value is asked for."""
    thread = ThreadPoolExecutor(1, "prefetch")
    waiting: deque[Future[T]] = deque()

    def values() -> Iterator[T]:
        for step in steps:
            waiting.append(thread.submit(make, step))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    try:
        yield values()
    finally:
        thread.shutdown(cancel_futures=True)
