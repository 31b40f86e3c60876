"""The rows of the report of a comparison by training."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ...tasks import AbstractLoss, AbstractTask
from ...training import Config, RunFolder
from .budget import tokens_of_a_sample
from .comparison import Rows
from .costs import LearningCurve, at_equal_cost, learning_curve, speed
from .paired import paired_difference
from .sweep import Trial, Tuned
from .trials import check_figures, failure, result


# Columns of the losses at equal cost, and of the costs.
_EQUAL = ("at_equal_evaluations", "at_equal_time")
_COSTS = ("evaluations_per_step", "tokens_per_second")


class Results:
    """The results of the runs in a folder.

    **Arguments:**

    - `configs`: scheme to configuration.
    - `keys`: those that were tuned.
    - `references`: scheme to the one from which its difference is taken, if any.
    - `tasks`: scheme to its data.
    """

    def __init__(
        self,
        runs: Path,
        configs: Mapping[str, Config],
        seeds: Sequence[int],
        keys: Sequence[str],
        references: Mapping[str, str],
        tasks: Mapping[str, AbstractTask],
    ):
        self.runs, self.configs, self.seeds, self.keys = runs, configs, seeds, keys
        self.references, self.tasks = references, tasks
        # Whether the result is on other data than what was chosen by, and its column.
        self.tested = all("test" in task.parts for task in tasks.values())
        self.reported = "test_loss" if self.tested else "validation_loss"

    def rows(self, chosen: Sequence[Tuned]) -> Rows:
        """A row for each scheme, the best first."""
        rows = [self._row(tuning) for tuning in chosen]
        rows = [{**row, **self._difference(row, rows)} for row in rows]
        curves = self.curves(rows)
        if curves:
            for column, cost in zip(_EQUAL, ("evaluations", "seconds"), strict=True):
                losses = at_equal_cost(curves, cost)
                rows = [{**row, column: losses.get(row["scheme"])} for row in rows]
        return sorted(rows, key=self._rank)

    @property
    def loss(self) -> AbstractLoss:
        """The loss of the data."""
        return next(iter(self.tasks.values())).loss

    def shown(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row as a terminal shows it."""
        columns = (self.reported, "spread", "difference", *_EQUAL, "parameters", *_COSTS)
        tuned = {key.rpartition(".")[2]: row[key] for key in self.keys}
        cells = {"scheme": row["scheme"], **tuned, **{x: row.get(x) for x in columns}}
        if row.get("half_width") is not None:
            cells["difference"] = f"{row['difference']:.3g} ± {row['half_width']:.2g}"
        return {**cells, "failure": row["failure"]} if "failure" in row else cells

    def curves(self, rows: Rows) -> dict[str, LearningCurve]:
        """The learning curves of the schemes that did not fail."""
        curves = {}
        for row in rows:
            if "failure" in row:
                continue
            runs = self._results(row["scheme"], [row[key] for key in self.keys])
            config, task = self.configs[row["scheme"]], self.tasks[row["scheme"]]
            size = row.get("training.batch_size", config.training.batch_size)
            tokens = size * tokens_of_a_sample(config, task, row["steps"])
            curves[row["scheme"]] = learning_curve(runs, tokens)
        return curves

    def _row(self, tuning: Tuned) -> dict[str, Any]:
        """The row of a scheme; one of which a run failed has no figures."""
        values = dict(zip(self.keys, tuning.best.values, strict=True))
        edges = {"at_edge": ", ".join(tuning.at_edge) or None} if self.keys else {}
        trials = self._trials(tuning.best.scheme, tuning.best.values)
        failures = [why for trial in trials if (why := failure(self.runs, trial))]
        if failures:
            figures = {self.reported: None, "failure": failures[0]}
        else:
            runs = self._results(tuning.best.scheme, tuning.best.values)
            figures = _figures(runs, self.reported)
        return {"scheme": tuning.best.scheme, **values, **edges, **figures}

    def _rank(self, row: dict[str, Any]) -> float:
        """The loss; of a scheme that failed, infinity."""
        loss = row[self.reported]
        return math.inf if loss is None else loss

    def _trials(self, scheme: str, values: Sequence[float]) -> list[Trial]:
        """The runs of a scheme, one for each seed."""
        return [Trial(scheme, tuple(values), seed) for seed in self.seeds]

    def _results(self, scheme: str, values: Sequence[float]) -> list[dict[str, Any]]:
        """Results of the runs of a scheme that did not fail."""
        trials = self._trials(scheme, values)
        found = [(trial, x) for trial in trials if (x := result(self.runs, trial)) is not None]
        # One that lacks a figure of another was not written so.
        names = dict.fromkeys([self.reported, *(name for _, run in found for name in run)])
        for trial, run in found:
            check_figures(RunFolder(self.runs / trial.name), run, names)
            if [x["step"] for x in run["log"]] != [x["step"] for x in found[0][1]["log"]]:
                raise InputError(
                    f"{RunFolder(self.runs / trial.name).metrics} has other steps than the log "
                    f"of {found[0][0].name}; restore it, or remove the run, so that it is made "
                    "again."
                )
        return [run for _, run in found]

    def _difference(self, row: dict[str, Any], rows: Rows) -> dict[str, Any]:
        """The columns of the difference to the reference, which has none itself; `None` where
        a run failed, and for the interval of a single seed."""
        if not self.references:
            return {}
        name = self.references.get(row["scheme"])
        seeds = {other["scheme"]: other.get("seeds") for other in rows}
        own, others = seeds[row["scheme"]], name and seeds[name]
        if not own or not others:
            return {"difference": None, "half_width": None}
        mean, half_width = paired_difference(own, others)
        return {"difference": mean, "half_width": half_width}


def _figures(runs: list[dict[str, Any]], reported: str) -> dict[str, Any]:
    """The figures of a scheme, from its runs."""
    losses = [run[reported] for run in runs]
    measured = [name for name in runs[0] if name.startswith(("test_", "validation_"))]
    means = {name: _mean([run[name] for run in runs]) for name in measured}
    return {
        reported: means.pop(reported),
        "spread": float(np.std(losses, ddof=1)) if len(losses) > 1 else None,
        **means,
        "parameters": runs[0]["parameters"],
        "evaluations_per_step": float(np.mean([run["nfe"] for run in runs])),
        "steps": runs[0]["steps"],
        "field_evaluations": float(np.mean([run["nfe"] * run["steps"] for run in runs])),
        "tokens_per_second": speed(runs),
        "seconds": float(np.median([run["seconds"] for run in runs])),
        "seeds": losses,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean, if it is finite; JSON has no other numbers."""
    mean = float(np.mean(np.array(values, dtype=float)))
    return mean if math.isfinite(mean) else None
