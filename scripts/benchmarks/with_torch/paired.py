"""An object in a process of its own, so that its threads disturb none here."""

import multiprocessing
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any


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
