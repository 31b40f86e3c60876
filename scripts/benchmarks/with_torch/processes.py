"""Objects in processes of their own, and the time and memory of a process."""

import ctypes
import gc
import multiprocessing
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import jax


_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PairedProcess:
    """Makes an object in another process and calls its methods there, one at a time.

    While no call is made the other process waits for one, idle. Use it as a context manager;
    the process ends with the block.

    **Arguments:**

    - `make`: makes the object; it and its arguments can be pickled.
    """

    def __init__(self, make: Callable[..., Any], *arguments: Any):
        # A fork would copy the threads of JAX in whatever state they are in.
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other,), daemon=True)
        self._process.start()
        other.close()
        # Not given to the process: one that dies while it starts would leave us waiting.
        self._connection.send((make, arguments))

    def call(self, method: str, *arguments: Any) -> Any:
        """The result of the method.

        **Raises:** `RuntimeError` with the traceback of what was raised there.
        """
        self._connection.send((method, arguments))
        result, error = self._connection.recv()
        if error is not None:
            raise RuntimeError(f"{method} failed in the paired process:\n{error}")
        return result

    def __enter__(self) -> "PairedProcess":
        return self

    def __exit__(self, *error: Any) -> None:
        self._connection.close()
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.kill()


def _serve(connection: Connection) -> None:
    make, arguments = connection.recv()
    made = None
    while True:
        try:
            method, given = connection.recv()
        except EOFError:
            return
        try:
            # Made at the first call, whose answer can say what went wrong.
            made = make(*arguments) if made is None else made
            connection.send((getattr(made, method)(*given), None))
        except Exception:
            connection.send((None, traceback.format_exc()))


def peak_resident_mebibytes(work: Callable[[], object]) -> float | None:
    """By how much the memory of this process rises at most while `work` runs; `None` where
    that cannot be known."""
    if not (_STATUS.exists() and _RESET.exists()):
        return None
    gc.collect()
    # What was freed goes back to the system, or it would be used again without a rise.
    ctypes.CDLL(None).malloc_trim(0)
    before = _read("VmRSS")
    _RESET.write_text("5")
    work()
    return _read("VmHWM") - before


def _read(name: str) -> float:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    raise KeyError(name)


def timed_steps(
    step: Callable[[], Any], steps: int, wait: Callable[[Any], Any] = jax.block_until_ready
) -> float:
    """Seconds for each of `steps` steps that follow one another.

    One more step goes ahead and does not count: it finds caches and threads as others left
    them. `wait` waits for what the last step returned.
    """
    wait(step())
    began = time.perf_counter()
    for _ in range(steps - 1):
        step()
    wait(step())
    return (time.perf_counter() - began) / steps


def seconds_of(work: Callable[[], object]) -> float:
    """Seconds that some work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
