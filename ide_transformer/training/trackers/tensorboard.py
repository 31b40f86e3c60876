import contextlib
import importlib
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, final

from ...errors import naming
from .tracker import AbstractTracker, require


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
