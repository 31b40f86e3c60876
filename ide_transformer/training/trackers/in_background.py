import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, final

from .tracker import AbstractTracker


@final
class InBackground(AbstractTracker):
    """Another tracker, in a thread of its own: no method waits for it, but `close`, and that
    only so long. After an error of the other tracker it is called no more.

    **Arguments:**

    - `tracker`: the other one.
    - `warn`: called with a line on what went wrong.
    - `patience`: seconds that `close` waits.
    """

    configurable: ClassVar[bool] = False

    def __init__(
        self, tracker: AbstractTracker, warn: Callable[[str], None], patience: float = 60.0
    ):
        self._tracker = tracker
        self._warn = warn
        self._patience = patience

    def start(self, folder: Path, config: Mapping[str, Any], step: int) -> None:
        self._calls: queue.SimpleQueue = queue.SimpleQueue()
        # A daemon: a tracker that hangs does not keep the process from ending.
        self._thread = threading.Thread(target=self._work, args=(self._calls,), daemon=True)
        self._calls.put((self._tracker.start, (folder, config, step)))
        self._thread.start()

    def log(self, step: int, values: Mapping[str, float | int]) -> None:
        self._calls.put((self._tracker.log, (step, values)))

    def close(self) -> None:
        self._calls.put((self._tracker.close, ()))
        self._calls.put(None)
        self._thread.join(self._patience)
        if self._thread.is_alive():
            self._warn(
                f"warning: {self._name} is not done after {self._patience:g} s; its last lines "
                "may be missing. metrics.jsonl has all."
            )

    @property
    def _name(self) -> str:
        return type(self._tracker).__name__

    def _work(self, calls: queue.SimpleQueue) -> None:
        while (call := calls.get()) is not None:
            method, arguments = call
            try:
                method(*arguments)
            except Exception as error:
                self._warn(
                    f"warning: {self._name} failed with {type(error).__name__}: {error}; the "
                    "run goes on without it. metrics.jsonl has all."
                )
                return
