"""Requests to stop a run: an interrupt (Ctrl-C, SIGINT) or a termination (SIGTERM)."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

import jax

from ..errors import GO_ON
from .steps.layout import largest


class Stopped(KeyboardInterrupt):
    """Training has ended on request. `signal` is the number of the signal."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.signal = signal_number


class StopRequest:
    """Whether a signal has asked the run to stop. Several processes stop once they `agree`."""

    def __init__(self) -> None:
        self._signal: int | None = None
        self._noted = 0

    @property
    def requested(self) -> bool:
        return self._signal is not None

    def note(self, signal_number: int) -> None:
        self._noted = signal_number
        if jax.process_count() == 1:
            self._signal = signal_number

    def agree(self) -> None:
        """Shares a request among the processes. All processes must call it."""
        if jax.process_count() > 1:
            self._signal = largest(self._noted) or None

    def check(self, moment: str = "") -> None:
        """Raises `Stopped` if there is a request."""
        if self._signal is not None:
            raise Stopped(f"Stopped{moment}; {GO_ON}.", self._signal)


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Inside this context a signal to stop is noted, so that a checkpoint can be written first.
    A second signal acts at once."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous: dict[int, Any] = {}

    def restore() -> None:
        while previous:
            signal.signal(*previous.popitem())

    def note(signal_number: int, frame: FrameType | None) -> None:
        request.note(signal_number)
        restore()

    previous |= {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        restore()


def end_by(signal_number: int) -> NoReturn:
    """Ends the process by a signal, so that a loop in a shell ends too."""
    sys.stdout.flush()
    sys.stderr.flush()
    signal.signal(signal_number, signal.SIG_DFL)
    signal.raise_signal(signal_number)
    # The first process of a container ignores the signal.
    os._exit(128 + signal_number)
