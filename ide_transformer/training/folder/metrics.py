"""Writes the log of a run, and shows its progress on the terminal."""

import functools as ft
import json
import math
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from ...errors import InputError, naming, whole_file
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
        names = [name for name in ("loss", "gradient_norm") if not math.isfinite(line[name])]
        values = " and ".join(f"{name.removesuffix('_norm')} {line[name]}" for name in names)
        super().__init__(
            f"{line['bad_steps_in_a_row']} steps in a row up to step {line['step']} had a loss "
            f"or gradient that is not finite ({values or 'the weights before the last ones'})"
        )


class MetricsLog:
    """Writes the figures of a run to `metrics.jsonl`, passes them to trackers and shows them.
    The error of a tracker does not end the run.

    The training loop does not wait: the figures of a step are written when the next logged step
    arrives. A thread notes when the device has computed them, which gives the rate.

    `began` is the reading of `time.perf_counter` at the start of the run.
    """

    # Seconds in which a tracker has to close at the end of the run.
    patience = 60.0

    def __init__(
        self,
        folder: RunFolder,
        trackers: Sequence[AbstractTracker],
        progress: "TrainingProgress",
        began: float,
        max_bad_steps: int = 10,
    ):
        self._folder = folder
        self._trackers = trackers if primary() else ()
        self._progress = progress
        self._began = began
        self._max_bad_steps = max_bad_steps
        # By `id`, since a tracker may be a dataclass, which has no hash.
        self._failed: set[int] = set()
        self._tokens = 0
        self._pending: tuple[int, int, Future[tuple[dict[str, Any], float]]] | None = None
        self._reader = ThreadPoolExecutor(1)
        self.restart_clock()

    def start(self, config: Mapping[str, Any], step: int) -> None:
        """Starts the trackers; for the arguments see `AbstractTracker.start`."""
        self._call_trackers("start", self._folder.path, config, step)

    def restart_clock(self) -> None:
        """Measures the rate from now on. The device must be idle."""
        self._window = self._tokens, time.perf_counter()

    def count_tokens(self, tokens: int) -> None:
        """Adds the tokens of a step."""
        self._tokens += tokens

    def log_step(self, step: int, metrics: dict[str, Array]) -> None:
        """Logs a training step; the device may still compute its metrics."""
        self.flush()
        reading = self._reader.submit(lambda: (jax.device_get(metrics), time.perf_counter()))
        self._pending = step, self._tokens, reading

    def flush(self) -> None:
        """Writes the pending metrics. Raises `NotFinite` after `max_bad_steps` in a row."""
        if self._pending is None:
            return
        step, tokens, reading = self._pending
        self._pending = None
        metrics, now = reading.result()
        tokens_before, last_time = self._window
        self._window = tokens, now
        line = {
            "step": step,
            **{name: np.asarray(value).item() for name, value in metrics.items()},
            "tokens_per_second": round((tokens - tokens_before) / (now - last_time), 1),
            "seconds": round(now - self._began, 1),
        }
        self.write_line(line)
        if line["bad_steps_in_a_row"] >= self._max_bad_steps:
            raise NotFinite(line)

    def write_line(self, line: dict[str, Any]) -> None:
        """Writes a line, passes it to all trackers and shows it."""
        # JSON has no NaN.
        finite = {name: x if math.isfinite(x) else None for name, x in line.items()}
        if primary():
            path = self._folder.metrics
            with naming(path), path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(finite) + "\n")
        figures = {name: x for name, x in line.items() if name != "step"}
        self._call_trackers("log", line["step"], figures)
        self._progress.show(line)

    def store(self) -> None:
        """Writes the pending metrics. All lines so far then outlive the process."""
        self.flush()
        self._call_trackers("flush")

    def close(self) -> None:
        """Ends the thread and closes the trackers."""
        self._reader.shutdown()
        for tracker in self._trackers:
            # A daemon, so that the process can end even if the tracker hangs.
            closing = threading.Thread(target=self._call, args=(tracker, "close"), daemon=True)
            closing.start()
            closing.join(self.patience)
            if closing.is_alive():
                self._warn(tracker, f"did not close within {self.patience:g} s")

    def _call_trackers(self, method: str, *arguments: Any) -> None:
        for tracker in self._trackers:
            if id(tracker) not in self._failed:
                self._call(tracker, method, *arguments)

    def _call(self, tracker: AbstractTracker, method: str, *arguments: Any) -> None:
        try:
            getattr(tracker, method)(*arguments)
        except (Exception, SystemExit) as error:
            if id(tracker) not in self._failed:
                self._failed.add(id(tracker))
                self._warn(tracker, f"failed with {type(error).__name__}: {error}")

    def _warn(self, tracker: AbstractTracker, problem: str) -> None:
        name = type(tracker).__name__
        say(f"warning: {name} {problem}; the run goes on. metrics.jsonl has all lines.")


def read_metrics(path: str | Path) -> list[dict]:
    """The lines of a log; none if there is no file. Drops an incomplete last line. Raises
    `InputError` for any other line that is wrong."""
    path = Path(path)
    lines = []
    if not path.exists():
        return lines
    with path.open("rb") as file:  # a damaged file may be no text
        for index, line in enumerate(iter(ft.partial(file.readline, _LONGEST), b""), 1):
            try:
                entry = json.loads(line)
                entry = {**entry, "step": int(entry["step"])}
                if not all(map(is_logged, entry.values())):
                    raise ValueError
                lines.append(entry)
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                if not line.endswith(b"\n") and not file.read(1):
                    break
                raise InputError(
                    f"{path}, line {index}: not a line of a log; remove or restore it."
                ) from None
    return lines


def trained_seconds(folder: RunFolder) -> float:
    """The seconds that a run has trained, from its summary or the last line of its log."""
    lines = read_metrics(folder.metrics)
    if folder.summary.exists():
        lines.append(folder.load_summary())
    return max((line.get("seconds", 0.0) for line in lines), default=0.0)


def cut_metrics(path: Path, step: int, losses: dict[int, float]) -> int:
    """Removes the lines after `step`, which a resumed run writes again, from the log and from
    the validation `losses`. Returns the last step that was logged, or `step`."""
    for later in [x for x in losses if x > step]:
        del losses[later]
    if not path.exists() or not primary():
        return step
    lines = read_metrics(path)
    earlier = [json.dumps(line) + "\n" for line in lines if line["step"] <= step]
    with whole_file(path) as part:
        part.write_text("".join(earlier), encoding="utf-8")
    return max([step, *(line["step"] for line in lines)])


# One console, so that lines appear above the bar.
_terminal = ft.cache(Terminal)


def say(text: str) -> None:
    """Prints a line, in the process that writes files."""
    if primary():
        _terminal().print(text)


class TrainingProgress:
    """Shows the step, the rate, the loss and the remaining time of a run: a bar on a terminal,
    else a line every few seconds, in the process that writes files. A context manager."""

    _seconds_between_lines = 5.0

    def __init__(self, steps: int, start: int):
        from rich import progress

        console = _terminal()
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
            console=console,
            disable=not (console.is_terminal and primary()),
        )
        self._task = self._bar.add_task("", total=steps, completed=start, state="compiling")

    def __enter__(self) -> "TrainingProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.stop()

    def show(self, line: dict) -> None:
        """Shows a line of the log."""
        step = line["step"]
        if "loss" not in line:
            self._held_out = "  ".join(f"{k} {v:.4f}" for k, v in line.items() if k != "step")
            if self._bar.disable:
                say(f"step {step}/{self._steps}  {self._held_out}")
            return
        state = f"loss {line['loss']:.4f}  {line['tokens_per_second']:,.0f} tokens/s"
        self._bar.update(self._task, completed=step, state=f"{state}  {self._held_out}")
        now = time.perf_counter()
        last = self._lines[-1][1] if self._lines else -math.inf
        due = now - last >= self._seconds_between_lines or step == self._steps
        if due and self._bar.disable:
            self._lines.append((step, now))
            first, began = self._lines[0]
            seconds = (now - began) / max(step - first, 1) * (self._steps - step)
            remains = (
                f"{duration(seconds)} of training left" if first < step < self._steps else ""
            )
            say(f"step {step}/{self._steps}  {state}  {remains}")
