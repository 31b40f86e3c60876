"""The training loop."""

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ..errors import InputError
from ..models import AbstractModel
from ..tasks import AbstractTask, Batch
from .checkpoints import Checkpoints
from .config import TrainingConfig
from .folder import RunFolder
from .metrics import MetricsLog, NotFinite, cut_metrics
from .optimizer import evaluated_weights
from .progress import TrainingProgress
from .step import TrainState, describe_memory, num_parameters, rolled_back
from .stopping import Stopped, StopRequest


EVALUATION_BATCH = 64


class Diverged(InputError):
    """The loss of a run did not stay finite, also after going back to a checkpoint."""


class Loop(NamedTuple):
    """The training loop of a run.

    - `losses`: the held-out losses by step, as far as they are logged; it grows.
    - `stop`: asked after each step.
    - `steps`: one for each mesh, see `make_train_step`; which of them is drawn for each step.
    - `evaluate`: see `make_evaluation`.
    """

    training: TrainingConfig
    task: AbstractTask
    folder: RunFolder
    checkpoints: Checkpoints
    losses: dict[int, float]
    stop: StopRequest
    steps: Sequence[Any]
    drawn: Callable[[int], int]
    evaluate: Callable[..., dict[str, float]]

    def run(self, state: TrainState, model: AbstractModel) -> TrainState:
        """Trains from a state to the last step. It waits for the device at evaluations and
        checkpoints only, and otherwise for the step before the one in progress. Where too many
        steps are not finite, it goes back to the last checkpoint once.

        **Raises:** `Stopped` on request, after saving a checkpoint; `Diverged` where going
        back does not help or is not possible.
        """
        training, start = self.training, int(state.step)
        with TrainingProgress(training.steps, start) as progress:
            done = f", going on from step {start}" if start else ""
            progress.say(f"{self.folder.path}: {num_parameters(state):,} parameters{done}")
            steps = self._compiled(state, model, progress) if start < training.steps else []
            shapes = jax.eval_shape(lambda: state)
            while True:
                rollbacks = int(state.faults.rollbacks)
                try:
                    return self._march(steps, state, progress)
                except NotFinite as fault:
                    state = self._last_good(shapes, rollbacks, fault.line)
                    progress.say(
                        f"warning: {_fault(fault.line)}; going back to step {int(state.step)}, "
                        "from there with other batches. This is done once."
                    )

    def _march(
        self, steps: list[Any], state: TrainState, progress: TrainingProgress
    ) -> TrainState:
        """Takes the steps that are left."""
        training, start = self.training, int(state.step)
        # After a rollback the batches are those of the next seed.
        seed = training.seed + int(state.faults.rollbacks)
        tokens = training.batch_size * self.task.tokens_per_sample
        log = MetricsLog(self.folder.metrics, tokens, progress.show, training.max_bad_steps)
        with contextlib.closing(log):
            if start and start not in self.losses:
                # It was stopped before the evaluation that is due here.
                self._evaluate_if_due(start, state, log)
            log.restart_clock(start)
            before: dict[str, Any] = {}
            for number in range(start + 1, training.steps + 1):
                step = steps[self.drawn(number - 1)]
                state, metrics = step(state, self._batch(number - 1, seed))
                # So few steps are on their way that a request to stop is soon obeyed.
                jax.block_until_ready(before)
                before, last = metrics, number == training.steps
                if number % training.log_every == 0 or last:
                    log.train(number, metrics)
                lowest = not self.stop.made and self._evaluate_if_due(number, state, log)
                due = number % training.checkpoint_every == 0 or lowest
                if due or last or self.stop.made:
                    log.flush()
                    if last or not int(state.faults.in_a_row):
                        self.checkpoints.save(number, state)
                    log.restart_clock(number)
                self.stop.check(f"Stopped after step {number}; go on with --resume.")
        return state

    def _batch(self, index: int, seed: int) -> Batch:
        return self.task.batch(index, self.training.batch_size, seed)

    def _compiled(
        self, state: TrainState, model: AbstractModel, progress: TrainingProgress
    ) -> list[Any]:
        """The steps, compiled; says what they need of memory."""
        batch = jax.tree.map(np.zeros_like, self._batch(0, self.training.seed))
        steps = []
        for number, step in enumerate(self.steps, 1):
            if len(self.steps) > 1:
                progress.say(f"compiling the step of mesh {number} of {len(self.steps)}")
            steps.append(step.lower(state, batch).compile())
            self.stop.check("Stopped before the first step.")
        temporary = max(step.memory_analysis().temp_size_in_bytes for step in steps)
        progress.say(describe_memory(model, state, self.task.loss, batch, temporary))
        return steps

    def _evaluate_if_due(self, number: int, state: TrainState, log: MetricsLog) -> bool:
        """Evaluates and logs where it is time; whether the loss is then the lowest so far. A
        request to stop cuts it short; a run that goes on from here makes it up."""
        training = self.training
        if number % training.evaluate_every:
            return False
        log.flush()
        try:
            values = self.evaluate(
                evaluated_weights(state.optimizer, state.weights),
                self.task,
                EVALUATION_BATCH,
                training.evaluate_samples,
                self.stop.check,
            )
        except Stopped:
            return False
        log.write({"step": number, **values})
        log.restart_clock(number)
        loss = values[f"{self.task.held_out_name}_loss"]
        lowest = loss < min(self.losses.values(), default=math.inf)
        self.losses[number] = loss
        return lowest and training.keep_best

    def _last_good(self, shapes: TrainState, rollbacks: int, line: dict) -> TrainState:
        """The state of the last checkpoint, from which the run goes on.

        **Raises:** `Diverged` where there is none, or the run has gone back before.
        """
        newest = self.checkpoints.newest()
        if rollbacks or newest is None:
            before = "There is no checkpoint to go back to"
            if rollbacks:
                before = f"The run went back before; checkpoint {newest} is kept"
            raise Diverged(
                f"{_fault(line)}; stopped. {before}. Lower optimizer.learning_rate or "
                "optimizer.clip, warm up longer, or take smaller steps in depth "
                "(solver.steps_per_interval); with training.gradient=reversible, also "
                "solver.options={coupling: 0.999} or training.gradient=recompute. "
                f"{self.folder.metrics} has the losses and norms up to there."
            )
        state = rolled_back(self.checkpoints.restore(shapes))
        cut_metrics(self.folder.metrics, int(state.step), self.losses)
        return state


def _fault(line: dict) -> str:
    found = [name for name in ("loss", "gradient_norm") if not math.isfinite(line[name])]
    what = " and ".join(f"{name.removesuffix('_norm')} {line[name]}" for name in found)
    return (
        f"{line['bad_steps_in_a_row']} steps in a row up to step {line['step']} had a loss or "
        f"gradient that is not finite ({what or 'the weights before the last ones'})"
    )
