"""The runs of a comparison. Each run is trained once."""

import functools as ft
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from rich.console import Console

from .. import training
from ..errors import GO_ON, InputError
from ..pretrained.files import read_json
from ..reporting import write_json
from ..tasks import AbstractTask
from ..training import Config, Diverged, RunFolder, Stopped, read_metrics, read_section
from ..training.configuration.files import check_code
from ..training.configuration.text import apply_overrides
from ..training.folder.run_folder import changed_data, changed_values, source
from ..training.setup import setup
from .sweep import Trial


class Plan(NamedTuple):
    """The configuration and the data of a scheme."""

    config: Config
    task: AbstractTask


class Trials:
    """The runs in a folder, with the plan of each scheme and the tuned keys. An interrupted run
    is resumed. A failed run leaves `<run>.failed.json`; remove this file to try it again."""

    def __init__(
        self, folder: Path, plans: Mapping[str, Plan], keys: Sequence[str], console: Console
    ):
        self.folder = folder
        self.plans = plans
        self.keys = keys
        self.console = console
        self.runs_left = 0
        self._fingerprint = ft.cache(lambda task: task.fingerprint())
        self._starts: dict[str, dict[str, Any] | None] = {}

    def config(self, trial: Trial) -> Config:
        """The configuration of a run.

        **Raises:** `InputError` for values that a run cannot have."""
        tree = self.plans[trial.scheme].config.as_tree()
        tree["name"] = trial.name
        tree["training"] |= {"seed": trial.seed, "sample": 0}
        values = zip(self.keys, trial.values, strict=True)
        apply_overrides(tree, [f"{key}={value!r}" for key, value in values])
        return read_section(Config, tree, f"schemes.{trial.scheme}")

    def run(self, trial: Trial) -> RunFolder:
        return RunFolder(self.folder / trial.name)

    def failed(self, trial: Trial) -> Path:
        return self.folder / f"{trial.name}.failed.json"

    def is_done(self, trial: Trial) -> bool:
        """Whether a run has ended or failed.

        **Raises:** `InputError` for a run with another configuration, data or first weights.
        """
        plan_config, task = self.plans[trial.scheme]
        config = self.config(trial)
        path = self.run(trial).path
        data = self._fingerprint(task)
        if (failed := self.failed(trial)).exists():
            path = failed
            record = read_json(failed)
            check_code(record.get("configuration"), failed, plan_config)
            run_config = read_section(Config, record.get("configuration"), str(failed))
            stale = [] if record.get("data") == data else ["its data"]
            start = record.get("start")
        elif path.exists():
            run = self.run(trial)
            run_config = run.load_config(plan_config)
            stale = changed_data(run, task, data)
            start = run.start
        else:
            return False
        changes = [*changed_values(run_config, config), *(f"{x} changed since" for x in stale)]
        if start != (now := self._start(config, task)):
            changes.append(f"first weights: {start or 'not recorded'} there, {now} here")
        if changes:
            raise InputError(
                f"{path}: this run differs ({'; '.join(changes)}). Restore that, set another "
                f"name, or remove {path}."
            )
        return failed.exists() or self.run(trial).summary.exists()

    def can_run(self, trial: Trial) -> bool:
        """Whether a run can have these values."""
        try:
            if not self.is_done(trial):
                setup(self.config(trial), self.plans[trial.scheme].task).check_shapes()
        except InputError:
            return False
        except Exception:
            pass  # the run fails too, and tells why
        return True

    def loss(self, trial: Trial) -> float:
        """The validation loss of a run, infinite if it failed. Trains the run if necessary."""
        if not self.is_done(trial):
            self.console.print(f"{trial.name} (runs left: {self.runs_left})")
            resume = self.run(trial).path.exists()
            try:
                training.train(self.config(trial), runs=self.folder, resume=resume)
            except Diverged as error:
                self._record_failure(trial, str(error))
            except OSError:
                raise  # a full disk, not the scheme
            except (InputError, Stopped) as error:
                error.args = (str(error).replace(GO_ON, "start the comparison again"),)
                raise
            except Exception as error:
                self._record_failure(trial, f"{type(error).__name__}: {error}")
            jax.clear_caches()  # frees the memory of programs
            self.is_done(trial)  # checks that data and first weights did not change meanwhile
            self.runs_left = max(self.runs_left - 1, 0)  # a sweep may add runs
        if self.failure(trial):
            return math.inf
        return self.run(trial).load_summary()["validation_loss"]

    def code(self, trial: Trial) -> str:
        """The code of a run, see `RunFolder.sources`."""
        failed = self.failed(trial)
        if failed.exists():
            return str(read_json(failed).get("code"))
        return " then ".join(self.run(trial).sources)

    def failure(self, trial: Trial) -> str | None:
        """Why a run failed, or `None`. A final loss that is not finite is a failure."""
        failed = self.failed(trial)
        if failed.exists():
            return str(read_json(failed).get("why"))
        summary = self.run(trial).load_summary()
        for name in ("validation_loss", "test_loss"):
            loss = summary.get(name, 0.0)
            if loss is None or not math.isfinite(loss):
                return f"the final {name.replace('_', ' ')} is not finite ({loss})"
        return None

    def results(self, trials: Sequence[Trial]) -> list[dict[str, Any]]:
        """The summaries of runs with different seeds, and their logs as `log`.

        **Raises:** `InputError` for a log that is cut or has other evaluations.
        """
        results: list[dict[str, Any]] = []
        for trial in trials:
            run = self.run(trial)
            summary = run.load_summary()
            log = read_metrics(run.metrics)
            evaluated = [x["step"] for x in log if "validation_loss" in x]
            first = results[0] if results else {**summary, "evaluated": evaluated}
            costs = [x for x in log if "tokens_per_second" in x]
            is_complete = (
                [x["step"] for x in costs][-1:] == [summary["steps"]]
                and all(x["tokens_per_second"] and x.get("field_evaluations") for x in costs)
                and evaluated == first["evaluated"]
                and first.keys() <= summary.keys() | {"evaluated", "log"}
            )
            if not is_complete:
                raise InputError(
                    f"{run.metrics}, or {run.summary.name} beside it, is missing or cut. "
                    f"Restore it, or remove {run.path}."
                )
            results.append({**summary, "evaluated": evaluated, "log": log})
        return results

    def _start(self, config: Config, task: AbstractTask) -> dict[str, Any] | None:
        """The `Setup.origin` of a run that starts now."""
        if config.model.run is None and config.model.pretrained is None:
            return None
        key = str((config.model, config.solver))
        if key not in self._starts:
            self._starts[key] = setup(config, task).origin
        return self._starts[key]

    def _record_failure(self, trial: Trial, why: str) -> None:
        self.console.print(f"{trial.name} failed; the others go on. {why}")
        config = self.config(trial)
        task = self.plans[trial.scheme].task
        record = {
            "why": why,
            "data": self._fingerprint(task),
            "code": source(config),
            "start": self._start(config, task),
            "configuration": config.as_tree(),
        }
        write_json(self.failed(trial), record)
