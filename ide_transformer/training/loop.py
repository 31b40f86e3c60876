"""The training loop."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NamedTuple

from ..models import AbstractModel
from ..tasks import AbstractTask
from .config import TrainingConfig
from .folder import Checkpoints, RunFolder
from .metrics import MetricsLog
from .progress import TrainingProgress
from .step import TrainState, describe_memory, num_parameters


EVALUATION_BATCH = 64


class Loop(NamedTuple):
    """The training loop of a run.

    - `step`, `evaluate`: see `make_train_step` and `make_evaluation`.
    """

    training: TrainingConfig
    task: AbstractTask
    folder: RunFolder
    checkpoints: Checkpoints
    step: Any
    evaluate: Callable[..., dict[str, float]]

    def run(self, state: TrainState, model: AbstractModel) -> TrainState:
        """Trains from a state to the last step. It waits for the device at evaluations and
        checkpoints only.

        **Raises:** `KeyboardInterrupt` when it was stopped, after saving a checkpoint.
        """
        training, start = self.training, int(state.step)
        with TrainingProgress(training.steps, start) as progress:
            done = f", going on from step {start}" if start else ""
            progress.say(f"{self.folder.path}: {num_parameters(state):,} parameters{done}")
            tokens = training.batch_size * self.task.tokens_per_sample
            log = MetricsLog(self.folder.metrics, tokens, progress.show)
            unfinished = start < training.steps
            step = self._compiled(state, model, progress) if unfinished else self.step
            log.restart_clock(start)
            with _stop_request() as stop, contextlib.closing(log):
                for number in range(start + 1, training.steps + 1):
                    state, metrics = step(state, self._batch(number - 1))
                    last = number == training.steps
                    if number % training.log_every == 0 or last:
                        log.train(number, metrics)
                    if number % training.evaluate_every == 0 and not last:
                        self._evaluate(number, state, log)
                    if number % training.checkpoint_every == 0 or last or stop.is_set():
                        log.flush()
                        self.checkpoints.save(number, state)
                        log.restart_clock(number)
                    if stop.is_set() and not last:
                        progress.say(f"Stopped after step {number}; go on with --resume.")
                        raise KeyboardInterrupt
        return state

    def _batch(self, index: int) -> Any:
        return self.task.batch(index, self.training.batch_size, self.training.seed)

    def _compiled(
        self, state: TrainState, model: AbstractModel, progress: TrainingProgress
    ) -> Any:
        """The step, compiled; says what it needs of memory."""
        batch = self._batch(int(state.step))
        step = self.step.lower(state, batch).compile()
        temporary = step.memory_analysis().temp_size_in_bytes
        progress.say(describe_memory(model, state, batch, temporary))
        return step

    def _evaluate(self, number: int, state: TrainState, log: MetricsLog) -> None:
        log.flush()
        samples = self.training.evaluate_samples
        values = self.evaluate(state.weights, self.task, EVALUATION_BATCH, samples)
        log.write({"step": number, **values})
        log.restart_clock(number)


@contextlib.contextmanager
def _stop_request() -> Iterator[threading.Event]:
    """Set by an interrupt (Ctrl-C) or a termination, so that the loop can stop after the step
    in progress. A second signal acts at once."""
    requested = threading.Event()
    previous: dict[int, Any] = {}

    def restore() -> None:
        while previous:
            signal.signal(*previous.popitem())

    def note(number: int, frame: FrameType | None) -> None:
        requested.set()
        restore()

    if threading.current_thread() is threading.main_thread():
        previous |= {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield requested
    finally:
        restore()
