"""The time that the host adds to a training run: batches, metrics, checkpoints, progress."""

import argparse
import contextlib
import functools as ft
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np

from ide_transformer.errors import InputError
from ide_transformer.tasks import LanguageTask
from ide_transformer.training import Config, build_model_of_size
from ide_transformer.training.checkpoints import Checkpoints
from ide_transformer.training.folder import RunFolder
from ide_transformer.training.parallel import make_layout
from ide_transformer.training.phases import make_phases
from ide_transformer.training.run import Loop
from ide_transformer.training.stopping import Stopped, StopRequest

from .shared.command import Command, shape, sizes
from .shared.timing import Rounds, Rows, alternate, seconds_of
from .shared.training import Training, config_of


# More than are taken: a benchmark ends before its run does.
_MANY = 10**9


class _Gate(StopRequest):
    """Lets a training loop, which asks it after each step, take some steps and wait."""

    def __init__(self, first: int, steps: int, finish: Callable[[], None]) -> None:
        super().__init__()
        self._steps, self._finish = steps, finish
        self._taken = -first
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)

    def check(self, message: str = "Stopped") -> None:
        if message.startswith("Stopped after step"):  # and not before the first one
            self._taken += 1
            if self._taken >= 0 and self._taken % self._steps == 0:
                # The last step is still on its way.
                jax.block_until_ready(jax.live_arrays())
                self._finish()
                self._done.release()
                self._go.acquire()
        super().check(message)

    def turn(self) -> float:
        """Seconds that the loop takes for its steps."""
        began = time.perf_counter()
        self._go.release()
        self._done.acquire()
        return time.perf_counter() - began

    def wait(self) -> None:
        """Until the first steps are taken."""
        self._done.acquire()

    def open(self) -> None:
        """Ends the loop."""
        self.note(2)
        self._go.release()


def _task(context: int) -> LanguageTask:
    letters = np.random.default_rng(0).integers(97, 123, 10**6, dtype=np.uint8)
    return LanguageTask(letters.tobytes().decode("ascii"), context)


@contextlib.contextmanager
def _whole_run(config: Config, task: LanguageTask, steps: int) -> Iterator[_Gate]:
    """The loop of a run, in a thread, with all that it writes."""
    key = jax.random.key(0)
    state, phases = make_phases(config, build_model_of_size(config, task.sizes, key), key)
    layout = make_layout(config.parallel)
    with tempfile.TemporaryDirectory() as there:
        folder = RunFolder(Path(there))
        folder.checkpoints.mkdir()
        with Checkpoints(folder, config, writes=True) as checkpoints:
            # Turns begin between two checkpoints, so that one is written during the steps that
            # follow it, as in a run.
            written = checkpoints._manager.wait_until_finished
            gate = _Gate(config.training.checkpoint_every // 2, steps, written)

            def run() -> None:
                run_of = config, task, folder, checkpoints, gate, phases
                with contextlib.suppress(Stopped), jax.set_mesh(layout.grid):
                    Loop(*run_of, layout, time.perf_counter()).run(layout.placed(state))

            thread = threading.Thread(target=run)
            thread.start()
            gate.wait()
            try:
                yield gate
            finally:
                gate.open()
                thread.join()


def host(options: argparse.Namespace, rounds: Rounds) -> Rows:
    """The time of a step by the compiled program alone, on one batch that is there already, and
    in a run that makes batches, logs each tenth step, writes checkpoints and says how far it
    is: rows of `alternate` of one step; ratios are to the first. A turn of the run ends when
    its checkpoints are written."""
    steps, every = options.steps, options.checkpoint_every
    if steps % every:
        raise InputError(
            f"--steps {steps} with --checkpoint-every {every}: only some turns would write a "
            f"checkpoint. Give a multiple, --steps {-(-steps // every) * every}, or write "
            f"them more often, --checkpoint-every {steps}."
        )
    rows = []
    periods = {"log_every": 10, "checkpoint_every": every, "evaluate_every": _MANY}
    task = _task(options.context)
    for depth in options.depth:
        config = config_of(depth, shape(options), steps=_MANY, **periods)
        batch = task.batch(0, options.batch, 0)
        bare = Training(config, task.sizes, [batch], task.loss)
        with _whole_run(config, task, steps) as gate:
            turns = {
                "compiled step": ft.partial(_seconds_of_a_step, bare, steps),
                "run": lambda gate=gate: gate.turn() / steps,
            }
            rows += alternate(turns, rounds, depth=depth)
    return rows


def _seconds_of_a_step(training: Training, steps: int) -> float:
    def work():
        for _ in range(steps):
            training.step()
        return training.state

    return seconds_of(work) / steps


COMMAND = Command(
    name="host",
    about="a step of a whole run against the compiled step alone; the steps of a turn are a "
    "multiple of those between checkpoints",
    example="--steps 500 --rounds 4 --json host.json",
    rounds=4,
    measure=host,
    options=sizes(depth=[4], batch=12, context=64) | dict(steps=500, checkpoint_every=500),
)
