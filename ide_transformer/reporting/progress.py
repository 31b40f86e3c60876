"""Progress of work: a bar on a terminal, plain lines elsewhere."""

import time
from typing import Any

from rich import progress
from rich.console import Console


class Terminal(Console):
    """Console of the scripts. The cursor stays visible beside a bar, so that a process
    that a signal ends leaves the terminal as it was."""

    def __init__(self) -> None:
        super().__init__(highlight=False, soft_wrap=True)

    def show_cursor(self, show: bool = True) -> bool:
        return super().show_cursor(True)


class ByteProgress:
    """Shows the bytes that are done, the rate and the time that remains; a context manager.

    Work that goes on from before is not part of the rate.
    """

    _seconds_between_lines = 5.0

    def __init__(self, what: str):
        self._what = what
        self._console = Terminal()
        self._first: tuple[int, float] | None = None
        self._last_line = -float("inf")
        self._bar = progress.Progress(
            progress.TextColumn(what),
            progress.BarColumn(),
            progress.DownloadColumn(binary_units=True),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("")

    def __enter__(self) -> "ByteProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.stop()

    def show(self, done: int, total: int) -> None:
        """So many bytes are done, of all."""
        now = time.perf_counter()
        if self._first is None:
            self._first = (done, now)
            self._bar.reset(self._task, total=total, completed=done)
        self._bar.update(self._task, completed=done)
        if now - self._last_line < self._seconds_between_lines and done < total:
            return
        self._last_line = now
        if not self._console.is_terminal:
            self._console.print(self._line(done, total, now), markup=False)

    def _line(self, done: int, total: int, now: float) -> str:
        assert self._first is not None
        (before, began), mebibyte = self._first, 2**20
        line = f"{self._what} {done / mebibyte:,.0f}/{total / mebibyte:,.0f} MiB"
        if done == before or now == began:
            return line
        rate = (done - before) / (now - began)
        return f"{line}  {rate / mebibyte:.1f} MiB/s  {(total - done) / rate:.0f} s left"
