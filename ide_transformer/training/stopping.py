"""Requests to stop a run: an interrupt (Ctrl-C, SIGINT) or a termination (SIGTERM)."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

import jax

from .steps.layout import largest


# Seconds after which a process that was asked to end is ended, whatever it waits for.
_GRACE = 8.0


class Stopped(KeyboardInterrupt):
    """Training has ended on request. `signal` is the number of the signal."""

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.signal = number


class StopRequest:
    """Whether a signal has asked the run to stop. Several processes stop once they `agree`."""

    def __init__(self) -> None:
        self._signal: int | None = None
        self._noted = 0
        # Set when the run no longer waits for the device.
        self.obeyed = threading.Event()

    @property
    def made(self) -> bool:
        return self._signal is not None

    def step_ended(self) -> None:
        """Call it when the step after a request has ended: its checkpoint may take long."""
        if self._signal is not None:
            self.obeyed.set()

    def note(self, number: int) -> None:
        self._noted = number
        if jax.process_count() == 1:
            self._signal = number

    def agree(self) -> None:
        """Shares a request among the processes. All processes must call it."""
        if jax.process_count() > 1:
            self._signal = largest(self._noted) or None

    def check(self, message: str = "Stopped") -> None:
        """Raises `Stopped` if there is a request."""
        if self._signal is not None:
            raise Stopped(message, self._signal)


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Inside this context a signal to stop is noted, so that a checkpoint can be written first.
    A second signal acts at once. A termination ends a waiting process after some seconds."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous: dict[int, Any] = {}

    def restore() -> None:
        while previous:
            signal.signal(*previous.popitem())

    def note(number: int, frame: FrameType | None) -> None:
        request.note(number)
        restore()

    # Python writes the number of a signal to this pipe at once, also while this thread waits
    # inside a library and cannot run `note`.
    receiver, sender = os.pipe()
    os.set_blocking(sender, False)
    previous |= {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    ending = {s for s, handler in previous.items() if handler is signal.SIG_DFL}
    former = signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
    arguments = receiver, ending, request.obeyed
    threading.Thread(target=_end_in_time, args=arguments, daemon=True).start()
    try:
        yield request
    finally:
        request.obeyed.set()
        signal.set_wakeup_fd(former)
        restore()
        os.close(sender)


def _end_in_time(receiver: int, ending: set[int], obeyed: threading.Event) -> None:
    with open(receiver, "rb", buffering=0) as numbers:
        while number := numbers.read(1):
            if number[0] in ending and not obeyed.wait(_GRACE):
                print(
                    f"error: a step did not end within {_GRACE:.0f} s of the request to stop; "
                    "what came after the last checkpoint is lost.",
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(128 + number[0])


def end_by(number: int) -> NoReturn:
    """Ends the process by a signal, so that a loop in a shell ends too, with 128 + `number`."""
    sys.stdout.flush()
    sys.stderr.flush()
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
    time.sleep(_GRACE)  # the signal may be delivered late
    os._exit(128 + number)
