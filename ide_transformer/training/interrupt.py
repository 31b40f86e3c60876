"""Stopping a run between two steps."""

import signal
import threading
from types import FrameType
from typing import Any


class StopRequest:
    """Notes an interrupt (Ctrl-C) or a termination, so that the loop can stop after the step
    in progress. A second signal acts at once.

    Use as a context manager, then look at `requested`.
    """

    _signals = (signal.SIGINT, signal.SIGTERM)

    def __init__(self):
        self.requested = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._previous = {s: signal.signal(s, self._note) for s in self._signals}
        return self

    def __exit__(self, *_: Any) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
