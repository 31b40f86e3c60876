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
from ..training.configuration.files import check_code, override_config
from ..training.configuration.key import Key
from ..training.folder.run_folder import changed_data, changed_values, source
from ..training.setup import setup
from .sweep import Trial


class Plan(NamedTuple):
    """The configuration and the data of a scheme."""

    config: Config
    task: AbstractTask


class Trials:
    """Trains the runs of a comparison in a folder. An interrupted run is resumed. A failed run
    leaves `<run>.failed.json`; remove this file to train it again.

    **Arguments:**

    - `plans`: the plan of each scheme.
    - `keys`: the tuned keys, in the order of `Trial.values`, which are written below `key`.
    """

    def __init__(
        self,
        folder: Path,
        plans: Mapping[str, Plan],
        keys: Sequence[str],
        key: Key,
        console: Console,
    ):
        self.folder = folder
        self.plans = plans
        self.keys = keys
        self.key = key
        self.console = console
        self.runs_left = 0
        self._fingerprint = ft.cache(lambda task: task.fingerprint())
        self._origins: dict[str, dict[str, Any] | None] = {}

    def config(self, trial: Trial) -> Config:
        """The configuration of a run.

        **Raises:** `InputError` for values that a run cannot have."""
        config = self.plans[trial.scheme].config.replace(name=trial.name)
        config = config.changed("training", seed=trial.seed, sample=0)
        values = zip(self.keys, trial.values, strict=True)
        places = {key: (self.key / key).place for key in self.keys}
        return override_config(config, [f"{key}={value!r}" for key, value in values], places)

    def run_folder(self, trial: Trial) -> RunFolder:
        plan = self.plans[trial.scheme]
        return RunFolder(self.folder / trial.name, trust=plan.config)

    def failure_file(self, trial: Trial) -> Path:
        return self.folder / f"{trial.name}.failed.json"

    def is_done(self, trial: Trial) -> bool:
        """Whether a run has finished or failed.

        **Raises:** `InputError` if its configuration, data or first weights have changed.
        """
        plan_config, task = self.plans[trial.scheme]
        config = self.config(trial)
        run = self.run_folder(trial)
        path = run.path
        data = self._fingerprint(task)
        if (failure_file := self.failure_file(trial)).exists():
            path = failure_file
            record = read_json(path)
            check_code(record.get("configuration"), path, plan_config)
            run_config = read_section(Config, record.get("configuration"), where=str(path))
            changed = [] if record.get("data") == data else ["its data"]
            origin = record.get("start")
        elif path.exists():
            run_config = run.load_config()
            changed = changed_data(run, task, data)
            origin = run.start
        else:
            return False
        changes = changed_values(run_config, config)
        changes += [f"{name} changed since" for name in changed]
        if origin != (now := self._origin(config, task)):
            changes.append(f"first weights: {origin or 'not recorded'} there, {now} here")
        if changes:
            raise InputError(
                f"{path}: this run differs ({'; '.join(changes)}). Restore what changed, set "
                f"another name, or remove {path}."
            )
        return failure_file.exists() or run.summary.exists()

    def can_run(self, trial: Trial) -> bool:
        """Whether a trial has values that its run accepts."""
        try:
            if not self.is_done(trial):
                setup(self.config(trial), self.plans[trial.scheme].task).check_shapes()
        except InputError:
            return False
        except Exception:
            pass  # the run will fail in the same way, and report it
        return True

    def loss(self, trial: Trial) -> float:
        """The validation loss of a run, infinite if it failed. Trains the run if necessary."""
        if not self.is_done(trial):
            self.console.print(f"{trial.name} (runs left: {self.runs_left})")
            resume = self.run_folder(trial).path.exists()
            try:
                training.train(self.config(trial), runs=self.folder, resume=resume)
            except Diverged as error:
                self._record_failure(trial, str(error))
            except OSError:
                raise  # such as a full disk, which is not a failure of the scheme
            except (InputError, Stopped) as error:
                error.args = (str(error).replace(GO_ON, "start the comparison again"),)
                raise
            except Exception as error:
                self._record_failure(trial, f"{type(error).__name__}: {error}")
            jax.clear_caches()  # frees the memory of programs
            self.is_done(trial)  # raises if data or first weights changed meanwhile
            self.runs_left = max(self.runs_left - 1, 0)  # a sweep may add runs
        if self.failure(trial):
            return math.inf
        return self.run_folder(trial).load_summary()["validation_loss"]

    def code(self, trial: Trial) -> str:
        """The code of a run, see `RunFolder.sources`."""
        failure_file = self.failure_file(trial)
        if failure_file.exists():
            return str(read_json(failure_file).get("code"))
        return " then ".join(self.run_folder(trial).sources)

    def failure(self, trial: Trial) -> str | None:
        """Why a run failed, or `None`. A final loss that is not finite is a failure."""
        failure_file = self.failure_file(trial)
        if failure_file.exists():
            return str(read_json(failure_file).get("why"))
        summary = self.run_folder(trial).load_summary()
        for name in ("validation_loss", "test_loss"):
            loss = summary.get(name, 0.0)
            if loss is None or not math.isfinite(loss):
                return f"the final {name.replace('_', ' ')} is not finite ({loss})"
        return None

    def results(self, trials: Sequence[Trial]) -> list[dict[str, Any]]:
        """The summary of each run of a scheme, with its log as `log` and the steps of its
        evaluations as `evaluated`.

        **Raises:** `InputError` for an incomplete log, and for evaluations at other steps.
        """
        results: list[dict[str, Any]] = []
        for trial in trials:
            run = self.run_folder(trial)
            summary = run.load_summary()
            log = read_metrics(run.metrics)
            evaluated = [x["step"] for x in log if "validation_loss" in x]
            results.append({**summary, "evaluated": evaluated, "log": log})
            first = results[0]
            costs = [x for x in log if "tokens_per_second" in x]
            is_complete = (
                [x["step"] for x in costs][-1:] == [summary["steps"]]
                and all(x["tokens_per_second"] and x.get("field_evaluations") for x in costs)
                and evaluated == first["evaluated"]
                and first.keys() <= results[-1].keys()
            )
            if not is_complete:
                raise InputError(
                    f"{run.metrics}, or {run.summary.name} beside it, is missing or cut. "
                    f"Restore it, or remove {run.path}."
                )
        return results

    def _origin(self, config: Config, task: AbstractTask) -> dict[str, Any] | None:
        """The `Setup.origin` of a run that starts now."""
        if config.model.run is None and config.model.pretrained is None:
            return None
        key = str((config.model, config.solver))
        if key not in self._origins:
            self._origins[key] = setup(config, task).origin
        return self._origins[key]

    def _record_failure(self, trial: Trial, why: str) -> None:
        self.console.print(f"{trial.name} failed; the others go on. {why}")
        config = self.config(trial)
        task = self.plans[trial.scheme].task
        record = {
            "why": why,
            "data": self._fingerprint(task),
            "code": source(config),
            "start": self._origin(config, task),
            "configuration": config.as_tree(),
        }
        write_json(self.failure_file(trial), record)
