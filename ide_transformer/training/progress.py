"""The progress of a run: a bar on a terminal, plain lines elsewhere."""

import time
from typing import Any

from rich import progress

from ..reporting import Terminal


class TrainingProgress:
    """Shows the step, the rate, the loss and the time that remains; a context manager.

    A run of `steps` steps goes on from step `start`. One that is `quiet` shows nothing.
    """

    _seconds_between_lines = 5.0

    def __init__(self, steps: int, start: int, *, quiet: bool = False):
        self._console = Terminal()
        self._console.quiet = quiet
        self._steps = steps
        # The first logged step and its time; before it, the step was compiled.
        self._first: tuple[int, float] | None = None
        self._last_line = -float("inf")
        self._held_out = ""
        self._bar = progress.Progress(
            progress.TextColumn("training"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[state]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=steps, completed=start, state="compiling")

    def __enter__(self) -> "TrainingProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """A line of its own."""
        self._console.print(text, markup=False)

    def show(self, line: dict) -> None:
        """One line of the metrics log."""
        if "loss" not in line:
            self._held_out = "  ".join(f"{k} {v:.4f}" for k, v in line.items() if k != "step")
            if not self._console.is_terminal:
                self.say(f"step {line['step']}/{self._steps}  {self._held_out}")
            return
        speed = f"{line['tokens_per_second']:,.0f} tokens/s"
        self.show_step(line["step"], f"loss {line['loss']:.4f}  {speed}")

    def show_step(self, step: int, state: str) -> None:
        """The step that is done, and a few words on it."""
        self._bar.update(self._task, completed=step, state=f"{state}  {self._held_out}")
        now = time.perf_counter()
        due = now - self._last_line >= self._seconds_between_lines or step == self._steps
        if due and not self._console.is_terminal:
            self._last_line = now
            self.say(f"step {step}/{self._steps}  {state}  {self._remaining(step, now)}")

    def _remaining(self, step: int, now: float) -> str:
        if self._first is None:
            self._first = (step, now)
            return ""
        first_step, first_time = self._first
        seconds = (now - first_time) / max(step - first_step, 1) * (self._steps - step)
        return f"{seconds:.0f} s left"
