import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, final

from .tracker import AbstractTracker


@final
class InBackground(AbstractTracker):
    """Another tracker, in a thread of its own: no method waits for it, but `flush` and `close`,
    and that only so long. After an error of the other tracker it is called no more.

    **Arguments:**

    - `tracker`: the other one.
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
        self._calls: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._failed = self._late = False
        # A daemon: a tracker that hangs does not keep the process from ending.
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._calls.put(self._told(self._tracker.start, folder, config, step))
        self._thread.start()

    def log(self, step: int, values: Mapping[str, float | int]) -> None:
        self._calls.put(self._told(self._tracker.log, step, values))

    def flush(self) -> None:
        done = threading.Event()
        self._calls.put(self._told(self._tracker.flush))
        self._calls.put(done.set)
        if not self._late and not done.wait(self._patience):
            self._late = True
            self._warn(
                f"warning: {self._name} has not kept its lines after {self._patience:g} s; the "
                "run waits for it no more. metrics.jsonl has all."
            )

    def close(self) -> None:
        self._calls.put(self._told(self._tracker.close))
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

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()

    def _told(self, method: Callable[..., None], *arguments: Any) -> Callable[[], None]:
        """The call of a method of the other tracker, unless one has failed before."""

        def call() -> None:
            if self._failed:
                return
            try:
                method(*arguments)
            except Exception as error:
                self._failed = True
                self._warn(
                    f"warning: {self._name} failed with {type(error).__name__}: {error}; the "
                    "run goes on without it. metrics.jsonl has all."
                )

        return call
