"""The runs of a comparison, each of which is made once."""

import functools as ft
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console

from ... import training
from ...errors import GO_ON, InputError
from ...pretrained.files import read_json
from ...reporting import duration, write_json
from ...tasks import AbstractTask
from ...training import Config, Diverged, RunFolder, Stopped, read_metrics
from ...training.configuration.files import apply_overrides, check_code
from ...training.folder.run_folder import changed_data, changed_values, source
from ...training.folder.starting import starting_model
from .budget import seconds_of_a_run, try_first_batch
from .sweep import Trial


# What the log says of the cost of steps.
_LOGGED = ("tokens_per_second", "field_evaluations")


class Made(NamedTuple):
    """The trace of a trial in the folder of the runs: a run, or `<run>.failed.json`, which says
    why it failed, its configuration, the fingerprints of its data and code, and its start."""

    folder: Path
    trial: Trial

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.folder / self.trial.name)

    @property
    def failed(self) -> Path:
        return self.folder / f"{self.trial.name}.failed.json"

    @property
    def code(self) -> str:
        """See `RunFolder.sources`."""
        if self.failed.exists():
            return str(read_json(self.failed).get("code"))
        return " then ".join(self.run.sources)

    @property
    def failure(self) -> str | None:
        """Why a run failed; `None` where it did not. One that ended with a loss that is not
        finite failed too."""
        if self.failed.exists():
            return str(read_json(self.failed).get("why"))
        summary = self.run.load_summary()
        for name in ("validation_loss", "test_loss"):
            loss = summary.get(name, 0.0)
            if loss is None or not math.isfinite(loss):
                return f"the {name.replace('_', ' ')} at its end is not finite ({loss})"
        return None

    @property
    def result(self) -> dict[str, Any]:
        """The summary and the log of a run that is done and did not fail.

        **Raises:** `InputError` for a log that does not have all steps.
        """
        summary = self.run.load_summary()
        log = read_metrics(self.run.metrics)
        costs = {x["step"]: [*map(x.get, _LOGGED)] for x in log if {*_LOGGED} & x.keys()}
        last = max(costs, default=0)
        lost = any(None in of_step for of_step in costs.values())
        if last != summary["steps"] or min(costs) < 1 or lost:
            raise InputError(
                f"{self.run.metrics} is missing, cut or edited: it has not the "
                f"{summary['steps']} steps of the run. Restore it, or remove {self.run.path}, "
                "so that the run is made again."
            )
        return {**summary, "steps": last, "log": log}


class Trials:
    """The runs in a folder, by the configuration and the data of each scheme and the keys that
    differ from trial to trial. One that was interrupted goes on; one that failed is not tried
    again until its `<run>.failed.json` is removed."""

    def __init__(
        self,
        folder: Path,
        plans: Mapping[str, Config],
        keys: Sequence[str],
        tasks: Mapping[str, AbstractTask],
        console: Console,
    ):
        self.folder = folder
        self.plans = plans
        self.keys = keys
        self.tasks = tasks
        self.console = console
        self._data = ft.cache(lambda task: task.fingerprint())
        self._starts: dict[str, dict[str, Any] | None] = {}
        # By scheme the seconds of the runs that are made, and those of one that was foreseen
        # from a few steps; and the schemes of the runs of the forecast that are not done.
        self._took: dict[str, dict[str, float]] = {}
        self._foreseen: dict[str, float] = {}
        self._left: list[str] = []
        self._planned: set[Trial] = set()

    def config(self, trial: Trial) -> Config:
        """The configuration of a run; `InputError` where it cannot be."""
        tree = self.plans[trial.scheme].model_dump(mode="json")
        tree["name"] = trial.name
        tree["training"] |= {"seed": trial.seed, "sample": 0}
        values = zip(self.keys, trial.values, strict=True)
        apply_overrides(tree, [f"{key}={value!r}" for key, value in values])
        return training.validated(Config, tree, f"schemes.{trial.scheme}")

    def done(self, trial: Trial) -> bool:
        """Whether a run has ended or failed; one that was made with another configuration, on
        other data or from other weights is refused."""
        made = Made(self.folder, trial)
        run = made.run
        task = self.tasks[trial.scheme]
        data = self._data(task)
        if run.summary.exists():
            own = self._took.setdefault(trial.scheme, {})
            own[trial.name] = run.load_summary()["seconds"] or 0.0
        if run.path.exists():
            config = run.load_config(self.plans[trial.scheme])
            self._check(run.path, trial, config, changed_data(run, task, data), run.start)
        if made.failed.exists():
            kept = read_json(made.failed)
            written = kept.get("configuration")
            check_code(written, made.failed, self.plans[trial.scheme])
            config = training.validated(Config, written, str(made.failed))
            changed = ["its data"] * (kept.get("data") != data)
            self._check(made.failed, trial, config, changed, kept.get("start"))
        return run.summary.exists() or made.failed.exists()

    def possible(self, trial: Trial) -> bool:
        """Whether there can be such a run; one that fails otherwise says why."""
        try:
            return self.done(trial) or not try_first_batch(
                self.config(trial), self.tasks[trial.scheme]
            )
        except InputError:
            return False
        except Exception:
            return True

    def forecast(self, trials: Sequence[Trial], further: Sequence[str] = ()) -> None:
        """Says how long the trials that are not done will take, with a `further` one of each of
        the schemes: by the runs that are made, and of a scheme without any by a few steps."""
        self._planned |= {*trials}
        self._left = [trial.scheme for trial in trials if not self.done(trial)]
        if not self._left:
            return
        self._left += further
        for scheme in dict.fromkeys(self._left):
            if scheme not in self._took | self._foreseen:
                began = time.perf_counter()
                try:
                    seconds = seconds_of_a_run(self.plans[scheme], self.tasks[scheme])
                    # A run builds and compiles its model too.
                    self._foreseen[scheme] = seconds + time.perf_counter() - began
                except Exception:
                    self._foreseen[scheme] = 0.0  # its run fails too, and says why
                jax.clear_caches()
            each = duration(self._expected(scheme))
            self.console.print(f"{scheme}: about {each} a run")
        self.console.print(f"{len(self._left)} runs, {self._remaining}")

    def loss(self, trial: Trial) -> float:
        """The validation loss of a run, which is made if it is not there; infinite where it
        failed."""
        if not self.done(trial):
            beyond = "the best value is the last one, so one beyond it is tried; "
            why = beyond * (trial not in self._planned)
            self.console.print(f"{trial.name} ({why}all runs: {self._remaining})")
            path = self.folder / trial.name
            try:
                training.train(self.config(trial), runs=self.folder, resume=path.exists())
            except Diverged as error:
                self._failed(trial, str(error))
            except OSError:
                raise  # nothing that the contender did
            except (InputError, Stopped) as error:  # nor this
                error.args = (str(error).replace(GO_ON, "start the comparison again"),)
                raise
            except Exception as error:
                self._failed(trial, f"{type(error).__name__}: {error}")
            jax.clear_caches()  # so that the memory of many runs does not add up
            self.done(trial)  # its data are read again, and may have changed meanwhile
            if trial.scheme in self._left:
                self._left.remove(trial.scheme)
        made = Made(self.folder, trial)
        return math.inf if made.failure else made.result["validation_loss"]

    @property
    def _remaining(self) -> str:
        return f"about {duration(sum(map(self._expected, self._left), 0.0))} left"

    def _expected(self, scheme: str) -> float:
        """The seconds of a run: those of the runs that are made, or what was foreseen, as much
        wrong as it was of the schemes of which runs are made."""
        took = {name: float(np.median([*own.values()])) for name, own in self._took.items()}
        if scheme in took:
            return took[scheme]
        both = took.keys() & self._foreseen.keys()
        foreseen = sum(self._foreseen[name] for name in both)
        factor = sum(took[name] for name in both) / foreseen if foreseen else 1.0
        return factor * self._foreseen[scheme]

    def start(self, trial: Trial) -> dict[str, Any] | None:
        """The `Start.origin` of a run that would begin now."""
        config = self.config(trial)
        if config.model.run is None and config.model.pretrained is None:
            return None
        key = config.model_dump_json(include={"model", "solver"})
        if key not in self._starts:
            self._starts[key] = starting_model(config, self.tasks[trial.scheme]).origin
        return self._starts[key]

    def _check(
        self, path: Path, trial: Trial, made_with: Config, data: list[str], start: Any
    ) -> None:
        changed = changed_values(made_with, self.config(trial))
        what = ["another configuration"] * bool(changed) + ["other data"] * bool(data)
        changed += [f"{name} changed since" for name in data]
        if start != (own := self.start(trial)):
            what.append("other weights to start from")
            changed.append(f"{start or 'not recorded'} there, {own} here")
        if changed:
            raise InputError(
                f"{path}: this run was made with {' and '.join(what)} ({'; '.join(changed)}). "
                "Restore what it was made with, give the comparison another name, or remove "
                f"{path}, so that the run is made again."
            )

    def _failed(self, trial: Trial, why: str) -> None:
        self.console.print(f"{trial.name} failed; the others go on. {why}")
        config = self.config(trial)
        record = {
            "why": why,
            "data": self._data(self.tasks[trial.scheme]),
            "code": source(config),
            "start": self.start(trial),
            "configuration": config.model_dump(mode="json"),
        }
        write_json(Made(self.folder, trial).failed, record)
