"""Trackers, which store the log of a run elsewhere."""

import abc
import importlib
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, final

from ..packages import require


class AbstractTracker(abc.ABC):
    """Stores the figures of a run while it trains. The run calls `start`, then `log` for each
    line of the log and `flush` before each checkpoint, then `close`.

    After an error of a tracker the run continues without it.
    """

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
        """Stores all lines before it returns, since a checkpoint follows. By default does
        nothing, for a tracker that stores each line at once."""

    @abc.abstractmethod
    def close(self) -> None:
        """Stores all lines, and ends what `start` began."""


@final
class Tensorboard(AbstractTracker):
    """Event files of TensorBoard, in the folder `tensorboard` of the run, by the package
    tensorboardX. `tensorboard --logdir runs` shows all runs.

    TensorBoard drops the lines after the checkpoint from which a run continues.

    **Raises:** `InputError` if tensorboardX is not installed.
    """

    def __init__(self):
        require("tensorboardX", "tensorboard", "training.trackers: tensorboard needs")

    def start(self, folder: Path, config: Mapping[str, Any], step: int) -> None:
        # Its SummaryWriter would hide the errors of a full disk in a thread.
        from tensorboardX import event_file_writer, summary
        from tensorboardX.proto import event_pb2

        self._summary = summary
        events = cast(Any, event_pb2)
        self._events = events
        events_folder = folder / "tensorboard"
        events_folder.mkdir(exist_ok=True)
        # TensorBoard reads the files in the order of their names, which begin with the time.
        prefix = str(events_folder / "events")
        self._file = event_file_writer.EventsWriter(prefix, f".{time.time_ns()}")
        self._write(step + 1, session_log=events.SessionLog(status=events.SessionLog.START))
        lines = [f"    {key}: {value}" for key, value in config.items()]
        self._write(step, summary=summary.text("configuration", "\n".join(lines)))

    def log(self, step: int, values: Mapping[str, float | int]) -> None:
        for name, value in values.items():
            self._write(step, summary=self._summary.scalar(name, value))

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _write(self, step: int, **content: Any) -> None:
        event = self._events.Event(step=step, wall_time=time.time(), **content)
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
        require("wandb", "wandb", "training.trackers: wandb needs")
        self._project = project

    def start(self, folder: Path, config: Mapping[str, Any], step: int) -> None:
        file = folder / "wandb" / "id"
        if not (step and file.is_file()):
            file.parent.mkdir(exist_ok=True)
            file.write_text(uuid.uuid4().hex, encoding="utf-8")
        self._run = importlib.import_module("wandb").init(
            project=self._project,
            name=folder.resolve().name,
            id=file.read_text(encoding="utf-8"),
            config=dict(config),
            dir=str(folder),
            resume="allow",
        )

    def log(self, step: int, values: Mapping[str, float | int]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()
