"""The files that a run has written."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import InputError
from ...training import Config, RunFolder, read_metrics


class RunRecord(NamedTuple):
    """A run, as far as it has come.

    - `name`: no other run of the report has it.
    - `lines`: of the log.
    - `summary`: of the end; empty for a run that goes on.
    """

    name: str
    folder: RunFolder
    config: Config
    lines: list[dict[str, Any]]
    summary: dict[str, Any]

    def logged(self, key: str) -> tuple[list[int], list[float]]:
        """The steps and the values of a figure of the log, where it has a finite value."""
        found = {x["step"]: x[key] for x in self.lines if x.get(key) is not None}
        return [*found], [*found.values()]

    @property
    def sample(self) -> str | None:
        """The text that it wrote at its end; `None` without one."""
        path = self.folder.sample
        if not path.exists():
            return None
        # What is damaged is shown as such.
        return path.read_text(encoding="utf-8", errors="replace").rstrip("\n")


def read_runs(paths: Sequence[str | Path], *, trust: bool = False) -> list[RunRecord]:
    """The records of runs, by their folders.

    **Arguments:**

    - `trust`: see `load_run`.

    **Raises:** `InputError` for a folder that is no run, or has nothing logged.
    """
    folders = {Path(path).resolve(): RunFolder(path) for path in paths}
    short = [folder.name for folder in folders]
    return [
        _record(folder, place.name if short.count(place.name) == 1 else str(folder.path), trust)
        for place, folder in folders.items()
    ]


def _record(folder: RunFolder, name: str, trust: bool) -> RunRecord:
    config = folder.load_config(trust)
    lines = read_metrics(folder.metrics) if folder.metrics.exists() else []
    if not any("loss" in line for line in lines):
        raise InputError(
            f"{folder.path} has logged no step of training ({folder.metrics.name}), so there "
            "is nothing to show; train it, or name another run."
        )
    summary = folder.load_summary() if folder.summary.exists() else {}
    return RunRecord(name, folder, config, lines, summary)
