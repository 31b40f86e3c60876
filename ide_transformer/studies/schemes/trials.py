"""The runs of a comparison, each of which is made once."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from ... import training
from ...errors import InputError
from ...tasks import AbstractTask
from ...training import Config, Diverged, RunFolder, read_metrics
from ...training.reading import apply_overrides
from .budget import seconds_of_a_run
from .sweep import Trial


class Trials:
    """The runs in a folder; one that was interrupted goes on. One that failed is not tried
    again until the file `<run>.failed.txt` is removed, which says why.

    **Arguments:**

    - `plans`: scheme to configuration.
    - `keys`: those whose values differ from trial to trial.
    """

    def __init__(
        self,
        folder: Path,
        plans: Mapping[str, Config],
        keys: Sequence[str],
        task: AbstractTask,
        console: Console,
    ):
        self.folder, self.plans, self.keys, self.console = folder, plans, keys, console
        self.task = task
        # The seconds of a run of each scheme, once they are measured, and the schemes of the
        # runs of the forecast that are not done.
        self._measured: dict[str, float] = {}
        self._left: list[str] = []

    def config(self, trial: Trial) -> Config:
        """The configuration of a run.

        **Raises:** `InputError` where it cannot be.
        """
        tree = self.plans[trial.scheme].model_dump(mode="json")
        tree["name"] = trial.name
        tree["training"] |= {"seed": trial.seed, "sample": 0}
        values = zip(self.keys, trial.values, strict=True)
        apply_overrides(tree, [f"{key}={value!r}" for key, value in values])
        return training.validated(Config, tree, f"schemes.{trial.scheme}")

    def forecast(self, trials: Sequence[Trial], further: Sequence[str] = ()) -> None:
        """Says how long the trials that are not done will take, with a `further` one of each of
        the schemes. A few steps of each scheme are measured for it."""
        self._left = [trial.scheme for trial in trials if not self._done(trial)]
        if not self._left:
            return
        self._left += further
        for scheme in dict.fromkeys(self._left):
            if scheme not in self._measured:
                self._measured[scheme] = self._seconds(scheme)
                seconds = self._measured[scheme]
                self.console.print(f"{scheme}: about {seconds:.0f} s a run", markup=False)
                jax.clear_caches()
        self.console.print(f"{len(self._left)} runs, {self._remaining}")

    def loss(self, trial: Trial) -> float:
        """The validation loss of a run, which is made if it is not there; infinite where it
        failed."""
        if not self._done(trial):
            self.console.print(f"{trial.name} (all runs: {self._remaining})", markup=False)
            path = self.folder / trial.name
            try:
                training.train(self.config(trial), runs=self.folder, resume=path.exists())
            except Diverged as error:
                self._failed(trial, str(error))
            except (InputError, OSError):
                raise  # nothing that the contender did
            except Exception as error:
                self._failed(trial, f"{type(error).__name__}: {error}")
            jax.clear_caches()  # so that the memory of many runs does not add up
            if trial.scheme in self._left:
                self._left.remove(trial.scheme)
        found = result(self.folder, trial)
        loss = math.nan if found is None else found["validation_loss"]
        return loss if math.isfinite(loss) else math.inf

    @property
    def _remaining(self) -> str:
        minutes = sum(self._measured[scheme] for scheme in self._left) / 60
        return f"about {minutes:.0f} minutes left"

    def _done(self, trial: Trial) -> bool:
        return (
            RunFolder(self.folder / trial.name).summary.exists()
            or failure(self.folder, trial) is not None
        )

    def _failed(self, trial: Trial, why: str) -> None:
        self.console.print(f"{trial.name} failed; the others go on. {why}", markup=False)
        self.folder.mkdir(parents=True, exist_ok=True)
        _failure(self.folder, trial).write_text(f"{why}\n", encoding="utf-8")

    def _seconds(self, scheme: str) -> float:
        try:
            return seconds_of_a_run(self.plans[scheme], self.task)
        except Exception:
            return 0.0  # its run fails too, and says why


def result(folder: Path, trial: Trial) -> dict[str, Any] | None:
    """The summary and the log of a run that is done; `None` where it failed."""
    if failure(folder, trial) is not None:
        return None
    run = RunFolder(folder / trial.name)
    summary = json.loads(run.summary.read_text(encoding="utf-8"))
    return {**summary, "log": read_metrics(run.metrics)}


def failure(folder: Path, trial: Trial) -> str | None:
    """Why a run failed; `None` where it did not."""
    path = _failure(folder, trial)
    return path.read_text(encoding="utf-8").strip() if path.exists() else None


def _failure(folder: Path, trial: Trial) -> Path:
    return folder / f"{trial.name}.failed.txt"
