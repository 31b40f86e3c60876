"""Trackers, which store the log of a run."""

import abc
import contextlib
import importlib
import json
import math
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, cast, final

from ..errors import GO_ON, InputError, naming
from ..packages import require


_NEEDS = "metrics.jsonl is written without any tracker; this one needs"


class AbstractTracker(abc.ABC):
    """Stores the figures of a run while it trains. The run calls `start`, then `log` for each
    line of the log and `flush` before each checkpoint, then `close`.

    After an error of a tracker that a configuration names (`training.trackers`), the run
    continues without it.
    """

    # Whether a configuration may name it.
    configurable: ClassVar[bool] = True

    @abc.abstractmethod
    def start(self, folder: Path, config: Mapping[str, Any], step: int) -> None:
        """Begins, or begins again when the run goes back to a checkpoint.

        **Arguments:**

        - `folder`: the folder of the run.
        - `config`: the values of its configuration by their dotted keys.
        - `step`: the step from which the run starts or continues. Later lines are void.
        """

    @abc.abstractmethod
    def log(self, step: int, values: Mapping[str, float | int]) -> None:
        """Stores a line of the log, the figures after a step. They may be NaN or infinite."""

    def flush(self) -> None:  # noqa: B027
        """Must have stored all lines when it returns, since the checkpoint that follows
        continues from them. By default nothing, for a tracker that stores each line at once."""

    @abc.abstractmethod
    def close(self) -> None:
        """Ends what `start` began. Must have stored all lines when it returns."""


@final
class Guarded(AbstractTracker):
    """Another tracker, whose error does not end the run. At the end of the run it has at most
    `patience` seconds to close. `warn` is called with a message if it fails or takes longer."""

    configurable: ClassVar[bool] = False

    def __init__(
        self, tracker: AbstractTracker, warn: Callable[[str], None], patience: float = 60.0
    ):
        self._tracker = tracker
        self._warn = warn
        self._patience = patience
        self._failed = False

    def start(self, folder: Path, config: Mapping[str, Any], step: int) -> None:
        self._call("start", folder, config, step)

    def log(self, step: int, values: Mapping[str, float | int]) -> None:
        self._call("log", step, values)

    def flush(self) -> None:
        self._call("flush")

    def close(self) -> None:
        # A daemon, so that the process can end even if the tracker hangs.
        closing = threading.Thread(target=self._call, args=("close",), daemon=True)
        closing.start()
        closing.join(self._patience)
        if closing.is_alive():
            self._say(f"did not close within {self._patience:g} s; the run ends without it")

    def _call(self, method: str, *arguments: Any) -> None:
        if self._failed and method != "close":
            return
        try:
            getattr(self._tracker, method)(*arguments)
        except (Exception, SystemExit) as error:
            if not self._failed:
                self._failed = True
                self._say(f"failed with {type(error).__name__}: {error}; the run goes on")

    def _say(self, problem: str) -> None:
        name = type(self._tracker).__name__
        self._warn(f"warning: {name} {problem}. metrics.jsonl has all lines.")


@final
class JsonLines(AbstractTracker):
    """`metrics.jsonl`: a JSON object a line. `flush` raises `InputError` if it was replaced."""

    configurable: ClassVar[bool] = False

    def __init__(self, path: Path):
        self._path = path

    def start(self, folder: Path, config: Mapping[str, Any], step: int) -> None:
        self._file = self._path.open("a", encoding="utf-8")

    def log(self, step: int, values: Mapping[str, float | int]) -> None:
        # JSON has no NaN.
        finite = {k: v if math.isfinite(v) else None for k, v in values.items()}
        with naming(self._path):
            self._file.write(json.dumps({"step": step, **finite}) + "\n")
            self._file.flush()

    def flush(self) -> None:
        try:
            there = os.path.samestat(self._path.stat(), os.fstat(self._file.fileno()))
        except OSError:
            there = False
        if not there:
            raise InputError(f"{self._path} was removed or replaced; put it back and {GO_ON}.")

    def close(self) -> None:
        with contextlib.suppress(OSError):  # `log` and `flush` have reported it
            self._file.close()


@final
class Tensorboard(AbstractTracker):
    """Event files of TensorBoard, in the folder `tensorboard` of the run, by the package
    tensorboardX. `tensorboard --logdir runs` shows all runs.

    TensorBoard drops the lines after the checkpoint from which a run continues.

    **Raises:** `InputError` if tensorboardX is not installed.
    """

    def __init__(self):
        require("tensorboardX", "tensorboard", _NEEDS)

    def start(self, folder: Path, config: Mapping[str, Any], step: int) -> None:
        # Its SummaryWriter would hide the errors of a full disk in a thread.
        from tensorboardX import event_file_writer, summary
        from tensorboardX.proto import event_pb2

        self._summary = summary
        events = cast(Any, event_pb2)
        self._events = events
        self._folder = folder / "tensorboard"
        self._folder.mkdir(exist_ok=True)
        # TensorBoard reads the files in the order of their names, which begin with the time.
        prefix = str(self._folder / "events")
        self._file = event_file_writer.EventsWriter(prefix, f".{time.time_ns()}")
        self._write(step + 1, session_log=events.SessionLog(status=events.SessionLog.START))
        lines = [f"    {key}: {value}" for key, value in config.items()]
        self._write(step, summary=summary.text("configuration", "\n".join(lines)))

    def log(self, step: int, values: Mapping[str, float | int]) -> None:
        for name, value in values.items():
            self._write(step, summary=self._summary.scalar(name, value))

    def flush(self) -> None:
        with naming(self._folder):
            self._file.flush()

    def close(self) -> None:
        with naming(self._folder):
            self._file.close()

    def _write(self, step: int, **content: Any) -> None:
        event = self._events.Event(step=step, wall_time=time.time(), **content)
        with naming(self._folder):
            self._file.write_event(event)


@final
class Wandb(AbstractTracker):
    """A run of Weights & Biases, in the folder `wandb` of the run and, after `wandb login`, on
    its server; `WANDB_MODE=offline` keeps it on this machine.

    The run has the name of its folder. If it continues from a checkpoint, Weights & Biases
    keeps the lines that it has already, and ignores those that are made again.

    **Arguments:**

    - `project`: the project of the run.

    **Raises:** `InputError` if wandb is not installed.
    """

    def __init__(self, project: str = "ide_transformer"):
        require("wandb", "wandb", _NEEDS)
        self._project = project

    def start(self, folder: Path, config: Mapping[str, Any], step: int) -> None:
        known = folder / "wandb" / "id"
        if not (step and known.is_file()):
            with naming(known):
                known.parent.mkdir(exist_ok=True)
                known.write_text(uuid.uuid4().hex, encoding="utf-8")
        self._run = importlib.import_module("wandb").init(
            project=self._project,
            name=folder.resolve().name,
            id=known.read_text(encoding="utf-8"),
            config=dict(config),
            dir=str(folder),
            resume="allow",
        )

    def log(self, step: int, values: Mapping[str, float | int]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()
