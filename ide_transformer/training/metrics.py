import contextlib
import json
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from ..errors import InputError, naming
from .trackers import AbstractTracker


class NotFinite(Exception):
    """Too many steps in a row had a loss or a gradient that is not finite; `line` is that of
    the log in which it showed."""

    def __init__(self, line: dict[str, Any]):
        super().__init__(line)
        self.line = line


class MetricsLog:
    """Gives the figures of a run to trackers, without making the training loop wait.

    The metrics of a step are given on when those of the next logged step arrive; by then the
    device has computed them. A thread notes when it has, which is the end of a window of the
    rate.

    **Arguments:**

    - `trackers`: started before; they are closed with the log.
    - `on_line`: called with each line after it was given to them.
    - `began`: when the run did, by `time.perf_counter`; earlier by what it took until it was
      stopped and resumed.
    """

    def __init__(
        self,
        trackers: Sequence[AbstractTracker],
        on_line: Callable[[dict], None],
        began: float,
        max_bad_steps: int = 10,
    ):
        self._trackers = trackers
        self._began = began
        self._max_bad_steps = max_bad_steps
        self._tokens = 0
        self._on_line = on_line
        self._pending: tuple[int, int, Future[tuple[dict[str, Any], float]]] | None = None
        self._reader = ThreadPoolExecutor(1)
        self.restart_clock()

    def restart_clock(self) -> None:
        """Counts the rate from now; the device is idle."""
        self._window = self._tokens, time.perf_counter()

    def count(self, tokens: int) -> None:
        """Counts the tokens of a step."""
        self._tokens += tokens

    def train(self, step: int, metrics: dict[str, Array]) -> None:
        """Logs a training step; the device may still compute its metrics."""
        self.flush()
        self._pending = (step, self._tokens, self._reader.submit(_read, metrics))

    def flush(self) -> None:
        """Waits for the pending metrics and writes them.

        **Raises:** `NotFinite` after `max_bad_steps` in a row.
        """
        if self._pending is None:
            return
        (step, tokens, reading), self._pending = self._pending, None
        read, at = reading.result()
        values = {name: np.asarray(value).item() for name, value in read.items()}
        before, began = self._window
        rate = (tokens - before) / (at - began)
        self._window = tokens, at
        clock = {"tokens_per_second": round(rate, 1), "seconds": round(at - self._began, 1)}
        line = {"step": step, **values, **clock}
        self.write(line)
        if values["bad_steps_in_a_row"] >= self._max_bad_steps:
            raise NotFinite(line)

    def keep(self) -> None:
        """Writes the pending metrics; all lines until here outlive the process.

        **Raises:** see `flush`.
        """
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
        step, values = line["step"], {k: v for k, v in line.items() if k != "step"}
        for tracker in self._trackers:
            tracker.log(step, values)
        self._on_line(line)


def _read(metrics: dict[str, Array]) -> tuple[dict[str, Any], float]:
    """Metrics, as soon as the device has computed them, and that time."""
    return jax.device_get(metrics), time.perf_counter()


def read_metrics(path: Path) -> list[dict]:
    """The lines of a log. A last line that is not complete is dropped.

    **Raises:** `InputError` for a line before it that is none of a log.
    """
    lines = []
    # In binary, since a damaged file may be no text.
    written = path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(written, 1):
        try:
            entry = json.loads(line)
            lines.append({**entry, "step": int(entry["step"])})
        except (ValueError, KeyError, TypeError):
            if number == len(written) and not line.endswith(b"\n"):
                break
            raise InputError(
                f"{path}, line {number}: no line of a log; remove it, or restore the file."
            ) from None
    return lines


def seconds_logged(path: Path) -> float:
    """The time that a run had taken when it wrote the last line of its log."""
    lines = read_metrics(path) if path.exists() else []
    return max((line["seconds"] for line in lines if "seconds" in line), default=0.0)


def validation_losses(path: Path) -> dict[int, float]:
    """The validation loss of each evaluation in a log, by step; without a log, none."""
    lines = read_metrics(path) if path.exists() else []
    found = {x["step"]: x["validation_loss"] for x in lines if "validation_loss" in x}
    return {step: math.nan if loss is None else loss for step, loss in found.items()}


def cut_metrics(path: Path, step: int, losses: dict[int, float]) -> None:
    """Removes what was logged after `step`, also from the validation `losses`, so that a
    resumed run writes it again."""
    for later in [x for x in losses if x > step]:
        del losses[later]
    if not path.exists():
        return
    kept = [json.dumps(line) + "\n" for line in read_metrics(path) if line["step"] <= step]
    replacement = path.with_suffix(".tmp")
    with naming(replacement):
        replacement.write_text("".join(kept), encoding="utf-8")
    replacement.replace(path)
