"""The log of a run, which goes to trackers, and its progress on the terminal."""

import contextlib
import functools as ft
import json
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from ...errors import InputError, whole_file
from ...reporting import Terminal, duration
from ..steps.layout import primary
from ..trackers import AbstractTracker
from .run_folder import RunFolder, is_logged


# The most bytes in a line of a log.
_LONGEST = 2**20


class NotFinite(Exception):
    """Too many steps in a row were not finite, as this `line` of the log shows."""

    def __init__(self, line: dict[str, Any]):
        self.bad_steps = line["bad_steps"]
        found = [name for name in ("loss", "gradient_norm") if not math.isfinite(line[name])]
        what = " and ".join(f"{name.removesuffix('_norm')} {line[name]}" for name in found)
        super().__init__(
            f"{line['bad_steps_in_a_row']} steps in a row up to step {line['step']} had a loss "
            f"or gradient that is not finite ({what or 'the weights before the last ones'})"
        )


class MetricsLog:
    """Passes the figures of a run to started trackers and to `on_line`. The training loop does
    not wait: the figures of a step are written when the next logged step arrives. A thread
    notes when the device has computed them, which gives the rate.

    `began` is the reading of `time.perf_counter` at the start of the run.
    """

    def __init__(
        self,
        trackers: Sequence[AbstractTracker],
        on_line: Callable[[dict], None],
        began: float,
        max_bad_steps: int = 10,
    ):
        self._trackers = trackers
        self._on_line = on_line
        self._began = began
        self._max_bad_steps = max_bad_steps
        self._tokens = 0
        self._pending: tuple[int, int, Future[tuple[dict[str, Any], float]]] | None = None
        self._reader = ThreadPoolExecutor(1)
        self.restart_clock()

    def restart_clock(self) -> None:
        """Measures the rate from now on. The device must be idle."""
        self._window = self._tokens, time.perf_counter()

    def count(self, tokens: int) -> None:
        """Adds the tokens of a step."""
        self._tokens += tokens

    def train(self, step: int, metrics: dict[str, Array]) -> None:
        """Logs a training step; the device may still compute its metrics."""
        self.flush()
        read = self._reader.submit(lambda: (jax.device_get(metrics), time.perf_counter()))
        self._pending = step, self._tokens, read

    def flush(self) -> None:
        """Writes the pending metrics. Raises `NotFinite` after `max_bad_steps` in a row."""
        if self._pending is None:
            return
        step, tokens, reading = self._pending
        self._pending = None
        read, at = reading.result()
        before, began = self._window
        self._window = tokens, at
        line = {
            "step": step,
            **{name: np.asarray(value).item() for name, value in read.items()},
            "tokens_per_second": round((tokens - before) / (at - began), 1),
            "seconds": round(at - self._began, 1),
        }
        self.write(line)
        if line["bad_steps_in_a_row"] >= self._max_bad_steps:
            raise NotFinite(line)

    def keep(self) -> None:
        """Writes the pending metrics. All lines so far then outlive the process."""
        self.flush()
        for tracker in self._trackers:
            tracker.flush()

    def close(self) -> None:
        self._reader.shutdown()
        with contextlib.ExitStack() as stack:
            for tracker in self._trackers:
                stack.callback(tracker.close)

    def write(self, line: dict[str, Any]) -> None:
        """Gives a line to all trackers."""
        values = {name: x for name, x in line.items() if name != "step"}
        for tracker in self._trackers:
            tracker.log(line["step"], values)
        self._on_line(line)


def read_metrics(path: str | Path) -> list[dict]:
    """The lines of a log; none if there is no file. Drops an incomplete last line. Raises
    `InputError` for any other line that is wrong."""
    path = Path(path)
    lines = []
    if not path.exists():
        return lines
    with path.open("rb") as file:  # a damaged file may be no text
        for number, line in enumerate(iter(ft.partial(file.readline, _LONGEST), b""), 1):
            try:
                entry = json.loads(line)
                entry = {**entry, "step": int(entry["step"])}
                if not all(map(is_logged, entry.values())):
                    raise ValueError
                lines.append(entry)
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                if not line.endswith(b"\n") and not file.read(1):
                    break
                what = f"{path}, line {number}: not a line of a log"
                raise InputError(f"{what}; remove it, or restore the file.") from None
    return lines


def seconds_taken(folder: RunFolder) -> float:
    """The seconds that a run has trained, by its summary or by the last line of its log."""
    ends = [folder.load_summary()] if folder.summary.exists() else []
    lines = [*read_metrics(folder.metrics), *ends]
    return max((x.get("seconds", 0.0) for x in lines), default=0.0)


def cut_metrics(path: Path, step: int, losses: dict[int, float]) -> int:
    """Removes the lines after `step`, which a resumed run writes again, from the log and from
    the validation `losses`. Returns the last step that was logged, or `step`."""
    for later in [x for x in losses if x > step]:
        del losses[later]
    if not path.exists() or not primary():
        return step
    lines = read_metrics(path)
    kept = [json.dumps(line) + "\n" for line in lines if line["step"] <= step]
    with whole_file(path) as written:
        written.write_text("".join(kept), encoding="utf-8")
    return max([step, *(line["step"] for line in lines)])


def say(text: str) -> None:
    """Prints a line, in the process that writes files."""
    if primary():
        Terminal().print(text, markup=False)


class TrainingProgress:
    """Shows the step, the rate, the loss and the remaining time of a run: a bar on a terminal,
    else a line every few seconds, in the process that writes files. A context manager."""

    _seconds_between_lines = 5.0

    def __init__(self, steps: int, start: int):
        from rich import progress

        self._console = Terminal()
        self._console.quiet = not primary()
        self._steps = steps
        # The steps of the last lines, about a minute, and their times: a later phase of the
        # schedule may be slower.
        self._lines: deque[tuple[int, float]] = deque(maxlen=13)
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
        """Prints a line."""
        self._console.print(text, markup=False)

    def show(self, line: dict) -> None:
        """Shows a line of the log."""
        if "loss" in line:
            speed = f"{line['tokens_per_second']:,.0f} tokens/s"
            self.show_step(line["step"], f"loss {line['loss']:.4f}  {speed}")
            return
        self._held_out = "  ".join(f"{k} {v:.4f}" for k, v in line.items() if k != "step")
        if not self._console.is_terminal:
            self.say(f"step {line['step']}/{self._steps}  {self._held_out}")

    def show_step(self, step: int, state: str) -> None:
        """Shows that a step is done, with a few words on it."""
        self._bar.update(self._task, completed=step, state=f"{state}  {self._held_out}")
        now = time.perf_counter()
        last = self._lines[-1][1] if self._lines else -math.inf
        due = now - last >= self._seconds_between_lines or step == self._steps
        if due and not self._console.is_terminal:
            self._lines.append((step, now))
            first, began = self._lines[0]
            left = (now - began) / max(step - first, 1) * (self._steps - step)
            remains = f"{duration(left)} of training left" if first < step < self._steps else ""
            self.say(f"step {step}/{self._steps}  {state}  {remains}")
