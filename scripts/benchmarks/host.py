"""The time that the host adds to a training run: batches, metrics, checkpoints, progress."""

import argparse
import contextlib
import functools as ft
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from ide_transformer.errors import InputError
from ide_transformer.tasks import LanguageTask
from ide_transformer.training import Config, build_model_of_size
from ide_transformer.training.folder.checkpoints import Checkpoints
from ide_transformer.training.folder.run_folder import RunFolder
from ide_transformer.training.loop import Loop
from ide_transformer.training.steps.layout import make_layout
from ide_transformer.training.steps.schedule import programs_of
from ide_transformer.training.stopping import Stopped, StopRequest

from .shared.command import Command, shape, sizes
from .shared.timing import Rounds, Rows, rows_of
from .shared.training import Training, config_of


# More than are taken: a benchmark ends before its run does.
_MANY = 10**9


class _Turns(StopRequest):
    """Turns inside a training loop, which asks after each step: after the `first` steps, and
    each time after `steps` more, `other` says its seconds of a step; in the end the loop is
    stopped."""

    def __init__(self, first: int, steps: int, rounds: Rounds, other: Callable[[], float]):
        super().__init__()
        self._left, self._steps, self._rounds, self._other = first, steps, rounds, other
        self._of_run: list[float] = []
        self._of_other: list[float] = []
        self._began = time.perf_counter()
        self.wait_until_written: Callable[[], None]

    @property
    def times(self) -> dict[str, list[float]]:
        """Seconds of a step in each round, without the round ahead and the first steps."""
        return {"compiled step": self._of_other[1:], "run": self._of_run[2:]}

    def check(self, message: str = "Stopped") -> None:
        if message.startswith("Stopped after step"):  # and not before the first one
            self._left -= 1
            if self._left == 0:
                self._end_turn()
        super().check(message)

    def _end_turn(self) -> None:
        # The last step is still on its way.
        jax.block_until_ready(jax.live_arrays())
        self.wait_until_written()
        self._of_run.append((time.perf_counter() - self._began) / self._steps)
        self._rounds.done(len(self._of_other))
        if len(self._of_other) > self._rounds.number:
            self.note(2)
            return
        self._of_other.append(self._other())
        self._left, self._began = self._steps, time.perf_counter()


def _train(config: Config, task: LanguageTask, turns: _Turns) -> None:
    """The loop of a run, with all that it writes, until the turns stop it."""
    key = jax.random.key(0)
    model = build_model_of_size(config, task.sizes, key)
    programs = programs_of(config, model)
    state = programs.start(model, key)
    layout = make_layout(config.parallel)
    with tempfile.TemporaryDirectory() as there:
        folder = RunFolder(Path(there))
        folder.checkpoints.mkdir()
        with Checkpoints(folder, config, writes=True) as checkpoints:
            turns.wait_until_written = checkpoints._manager.wait_until_finished
            loop = Loop(config, task, folder, checkpoints, turns, programs, layout, 0.0)
            with contextlib.suppress(Stopped), jax.set_mesh(layout.grid):
                loop.run(layout.placed(state))


def host(options: argparse.Namespace, rounds: Rounds) -> Rows:
    """A step of a whole run against the compiled step alone. The run makes batches, logs each
    tenth step, writes checkpoints and says how far it is; a turn ends when they are written,
    and has a multiple of the steps between two."""
    steps, every = options.steps, options.checkpoint_every
    if steps % every:
        raise InputError(
            f"--steps {steps} with --checkpoint-every {every}: only some turns would write a "
            f"checkpoint. Give a multiple, --steps {-(-steps // every) * every}, or write "
            f"them more often, --checkpoint-every {steps}."
        )
    rows = []
    periods = {"log_every": 10, "checkpoint_every": every, "evaluate_every": _MANY}
    letters = np.random.default_rng(0).integers(97, 123, 10**6, dtype=np.uint8)
    task = LanguageTask(letters.tobytes().decode("ascii"), options.context)
    for depth in options.depth:
        config = config_of(depth, shape(options), steps=_MANY, **periods)
        bare = Training(config, task.sizes, [task.batch(0, options.batch, 0)], task.loss)
        # Turns begin between two checkpoints, so that one is written during the steps that
        # follow it, as in a run.
        turns = _Turns(-(-every // 2), steps, rounds, ft.partial(bare.seconds_of_a_step, steps))
        _train(config, task, turns)
        rows += rows_of(turns.times, depth=depth)
    return rows


COMMAND = Command(
    name="host",
    example="--steps 500 --rounds 4 --json host.json",
    rounds=4,
    measure=host,
    options=sizes(depth=[4], batch=12, context=64) | dict(steps=500, checkpoint_every=500),
)
