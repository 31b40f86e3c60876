"""Trackers: where the log of a run goes."""

import abc
import contextlib
import importlib
import importlib.util
import json
import math
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, final

from ..errors import InputError, naming


class AbstractTracker(abc.ABC):
    """A place where the figures of a run go while it trains: `start`, then `log` for each line
    of the log and `flush` before each checkpoint, then `close`.

    One that a configuration names (`training.trackers`) works in a thread of its own, so that
    training waits for it at checkpoints only. An error in it is reported, and the run goes on
    without it.
    """

    # Whether a configuration may name it.
    configurable: ClassVar[bool] = True

    @abc.abstractmethod
    def start(self, folder: Path, config: Mapping[str, Any], step: int) -> None:
        """Called once before the first line, and again where the run goes back to a checkpoint.

        - `folder`: that of the run, which is there.
        - `config`: the configuration, its values by their dotted keys.
        - `step`: after which the run begins or goes on. What was logged after it by the same
          run is not valid any more.
        """

    @abc.abstractmethod
    def log(self, step: int, values: Mapping[str, float | int]) -> None:
        """One line of the log: some figures after a step. A figure may be NaN or infinite."""

    def flush(self) -> None:  # noqa: B027
        """Called before a checkpoint is written, from which a run that is killed goes on: all
        lines have to be kept when it returns. By default nothing, for a tracker that keeps
        each line at once."""

    @abc.abstractmethod
    def close(self) -> None:
        """Ends what `start` began. All lines have to be kept by then."""


def require(package: str, extra: str) -> None:
    """**Raises:** `InputError` where the package of a tracker is not installed."""
    if importlib.util.find_spec(package) is None:
        raise InputError(
            f"the package {package} is not installed; run: pip install "
            f"'ide_transformer[{extra}]', or drop this tracker. metrics.jsonl is written "
            "without any."
        )


@final
class InBackground(AbstractTracker):
    """Another tracker, in a thread of its own: no method waits for it, but `flush` and `close`,
    and that only so long. After an error of the other tracker it is called no more.

    - `warn`: called with a line on what went wrong.
    - `patience`: seconds that `close` waits; `flush` too, and never again where that was not
      enough.
    """

    configurable: ClassVar[bool] = False

    def __init__(
        self, tracker: AbstractTracker, warn: Callable[[str], None], patience: float = 60.0
    ):
        self._tracker = tracker
        self._warn = warn
        self._patience = patience

    def start(self, folder: Path, config: Mapping[str, Any], step: int) -> None:
        self._calls: queue.SimpleQueue[tuple[Any, tuple, threading.Event] | None]
        self._calls, self._late = queue.SimpleQueue(), False
        self._tell(self._tracker.start, folder, config, step)
        # A daemon: a tracker that hangs does not keep the process from ending.
        threading.Thread(target=self._work, args=(self._calls,), daemon=True).start()

    def log(self, step: int, values: Mapping[str, float | int]) -> None:
        self._tell(self._tracker.log, step, values)

    def flush(self) -> None:
        done = self._tell(self._tracker.flush)
        if not self._late and not done.wait(self._patience):
            self._late = True
            self._warn(
                f"warning: {self._name} has not kept its lines after {self._patience:g} s; the "
                "run waits for it no more. metrics.jsonl has all."
            )

    def close(self) -> None:
        done = self._tell(self._tracker.close)
        self._calls.put(None)
        if not done.wait(self._patience):
            self._warn(
                f"warning: {self._name} is not done after {self._patience:g} s; its last lines "
                "may be missing. metrics.jsonl has all."
            )

    @property
    def _name(self) -> str:
        return type(self._tracker).__name__

    def _tell(self, method: Callable[..., None], *arguments: Any) -> threading.Event:
        """Has the thread call a method of the other tracker; the event is set afterwards."""
        done = threading.Event()
        self._calls.put((method, arguments, done))
        return done

    def _work(self, calls: queue.SimpleQueue) -> None:
        failed = False
        while (call := calls.get()) is not None:
            method, arguments, done = call
            try:
                if not failed:
                    method(*arguments)
            except Exception as error:
                failed = True
                self._warn(
                    f"warning: {self._name} failed with {type(error).__name__}: {error}; the "
                    "run goes on without it. metrics.jsonl has all."
                )
            done.set()


@final
class JsonLines(AbstractTracker):
    """`metrics.jsonl`: one JSON object a line, which every run writes. A line is in the file
    when `log` returns; one that cannot be written is an `OSError`."""

    configurable: ClassVar[bool] = False

    def __init__(self, path: Path):
        self._path = path

    def start(self, folder: Path, config: Mapping[str, Any], step: int) -> None:
        self._file = self._path.open("a", encoding="utf-8")

    def log(self, step: int, values: Mapping[str, float | int]) -> None:
        # NaN is not JSON; a reader should not stumble over the line that reports it.
        finite = {k: v if math.isfinite(v) else None for k, v in values.items()}
        with naming(self._path):
            self._file.write(json.dumps({"step": step, **finite}) + "\n")
            self._file.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what could not be written was said
            self._file.close()


@final
class Tensorboard(AbstractTracker):
    """Event files of TensorBoard, in the folder `tensorboard` of the run, by the package
    tensorboardX. `tensorboard --logdir runs` shows all runs.

    Where a run goes on from a checkpoint, TensorBoard drops what was logged after it.

    **Raises:** `InputError` where tensorboardX is not installed.
    """

    def __init__(self):
        require("tensorboardX", "tensorboard")

    def start(self, folder: Path, config: Mapping[str, Any], step: int) -> None:
        self._summary = importlib.import_module("tensorboardX.summary")
        self._events = importlib.import_module("tensorboardX.proto.event_pb2")
        records = importlib.import_module("tensorboardX.record_writer")
        place = folder / "tensorboard"
        place.mkdir(exist_ok=True)
        # TensorBoard reads the files in the order of their names, which begin with the second.
        now = time.time_ns()
        name = f"events.out.tfevents.{now // 10**9}.{socket.gethostname()}.{now}"
        self._file = records.RecordWriter(str(place / name))
        self._write(0, file_version="brain.Event:2")
        begins = self._events.SessionLog(status=self._events.SessionLog.START)
        self._write(step + 1, session_log=begins)
        lines = [f"    {key}: {value}" for key, value in config.items()]
        self._write(step, summary=self._summary.text("configuration", "\n".join(lines)))

    def log(self, step: int, values: Mapping[str, float | int]) -> None:
        for name, value in values.items():
            self._write(step, summary=self._summary.scalar(name, value))

    def flush(self) -> None:
        with self._closing_where_it_fails():
            self._file.flush()

    def close(self) -> None:
        with naming(self._file.path):
            self._file.close()

    def _write(self, step: int, **content: Any) -> None:
        event = self._events.Event(step=step, wall_time=time.time(), **content)
        with self._closing_where_it_fails():
            self._file.write(event.SerializeToString())

    @contextlib.contextmanager
    def _closing_where_it_fails(self) -> Iterator[None]:
        try:
            with naming(self._file.path):
                yield
        except OSError:
            with contextlib.suppress(OSError):  # what is left of it cannot be written either
                self._file.close()
            raise


@final
class Trackio(AbstractTracker):
    """A data base of Trackio on this machine; `trackio show --project NAME` shows it. Nothing
    leaves the machine, unless the variables of Trackio's own say so.

    The run has the name of its folder. Where it goes on from a checkpoint, the lines after it
    are there twice: Trackio does not forget.

    **Arguments:**

    - `project`: in which the run appears beside others.

    **Raises:** `InputError` where trackio is not installed.
    """

    def __init__(self, project: str = "ide_transformer"):
        require("trackio", "trackio")
        self._project = project

    def start(self, folder: Path, config: Mapping[str, Any], step: int) -> None:
        self._run = importlib.import_module("trackio").init(
            self._project,
            folder.resolve().name,
            config=dict(config),
            resume="allow" if step else "never",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log(self, step: int, values: Mapping[str, float | int]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()
