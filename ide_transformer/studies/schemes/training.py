"""Schemes compared by training: the same data, seeds and budget for each."""

import functools as ft
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator
from rich.console import Console

from ... import training
from ...reporting import plot_curves, plot_intervals, write_json
from ...tasks import AbstractTask
from ...training import Config
from ...training.types import Seed, folder_name
from .budget import Budget
from .comparison import AbstractComparison, Rows
from .paired import paired_difference
from .sweep import Sweep, Trial, Tuned, grid, tuned
from .trials import Trials, result


class TrainingComparison(AbstractComparison):
    """Each scheme trained from scratch on the same data, seeds and budget. A run that was
    interrupted goes on.

    - `base`: a configuration of a run, relative to this file.
    - `sweep`: what is tuned for each scheme before, such as the learning rate.
    - `schemes`: name to the sections in which the scheme differs from the base.
    - `reference`: the scheme from which the others' differences are taken, seed by seed.
    """

    mode: Literal["train"]
    base: Annotated[Path, Field(strict=False)]
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, strict=False)] = (0,)
    budget: Budget
    sweep: Sweep | None = None
    schemes: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    reference: str | None = None

    @model_validator(mode="after")
    def _each_run_once(self):
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds={list(self.seeds)}: give each of them once")
        for name in self.schemes:
            try:
                folder_name(Trial(name, (1.234e-300,) * len(self._swept), max(self.seeds)).name)
            except ValueError as error:
                raise ValueError(f"schemes.{name}: {error}") from None
        if len({Trial(name, (), 0).name for name in self.schemes}) < len(self.schemes):
            raise ValueError(
                f"schemes: two of {', '.join(self.schemes)} would share a folder, whose name "
                "has letters, digits and '.' only; rename one"
            )
        if self.reference not in (None, *self.schemes):
            raise ValueError(
                f"reference={self.reference!r}: it must be one of {', '.join(self.schemes)}"
            )
        return self

    @property
    def _swept(self) -> dict[str, tuple[float, ...]]:
        return self.sweep.keys if self.sweep else {}

    def placed(self, folder: Path) -> "TrainingComparison":
        return self.model_copy(update={"base": folder / self.base})

    def measure(self, folder: Path, console: Console) -> tuple[str, Rows]:
        configs, task = self._configs_and_task
        plans = {
            name: _with_steps(config, self.budget.steps(config, task))
            for name, config in configs.items()
        }
        trials = Trials(folder / "runs", plans, tuple(self._swept), task, console)
        first, *others = self.seeds
        planned = [trial for name in plans for trial in grid(name, self._swept, first)]
        for trial in planned:
            trials.config(trial)  # what cannot be fails here
        trials.forecast(planned, [*plans] * len(others))
        chosen = [tuned(name, self.sweep, first, trials.loss) for name in plans]
        repeated = [t.best._replace(seed=seed) for seed in others for t in chosen]
        trials.forecast(repeated)
        for trial in repeated:
            trials.loss(trial)
        rows = [self._row(folder, tuning, trials.held_out) for tuning in chosen]
        rows = [{**row, **self._difference(row, rows)} for row in rows]
        if self.sweep:
            label = f"{task.held_out_name} {task.loss.label}"
            _write_sweep(folder, self.sweep, chosen, label)
        about = (
            f"Each scheme trained from scratch with {self.budget} for each of the seeds "
            f"{', '.join(map(str, self.seeds))}; otherwise as {self.base.name}. "
            f"{_about(self.sweep)}{self._about_differences()}Loss and other figures are means "
            "over seeds on all held-out samples, the spread is the standard deviation of the "
            "loss. Times are medians and depend on what else the machine did."
        )
        return about, sorted(rows, key=lambda row: row[trials.held_out] or math.inf)

    def draw(self, folder: Path, rows: Rows) -> None:
        """Learning curves, and the loss against what it cost."""
        held_out = next(column for column in rows[0] if column.endswith("_loss"))
        by_step, by_cost = {}, {}
        for row in rows:
            runs = self._results(folder, row["scheme"], [row[key] for key in self._swept])
            curves = [_losses(run, held_out) for run in runs if run is not None]
            if len(curves) < len(runs):
                continue
            steps, losses = np.array([*curves[0]]), np.mean([[*c.values()] for c in curves], 0)
            by_step[row["scheme"]] = (steps, losses)
            by_cost[row["scheme"]] = (steps * row["evaluations_per_step"], losses)
        _, task = self._configs_and_task
        y = f"{task.held_out_name} {task.loss.label}"
        plot_curves(folder / "loss_by_step.png", by_step, x="optimiser step", y=y)
        x = "field evaluations of the forward solve"
        plot_curves(folder / "loss_by_cost.png", by_cost, x=x, y=y)
        differences = {
            row["scheme"]: (row["difference"], row["half_width"])
            for row in rows
            if row.get("half_width") is not None
        }
        if differences:
            label = f"difference to {self.reference}, {y}"
            plot_intervals(folder / "differences.png", differences, x=label)

    @ft.cached_property
    def _configs_and_task(self) -> tuple[dict[str, Config], AbstractTask]:
        """The configuration of each scheme, and the task, which is the same for all."""
        base = training.read_tree(self.base)
        configs = {
            name: scheme_config(base, change, f"{self.base} with schemes.{name}")
            for name, change in self.schemes.items()
        }
        return configs, training.build_task(next(iter(configs.values())))

    def _results(
        self, folder: Path, scheme: str, values: Sequence[float]
    ) -> list[dict[str, Any] | None]:
        """The results of a scheme, one for each seed."""
        trials = [Trial(scheme, tuple(values), seed) for seed in self.seeds]
        return [result(folder / "runs", trial) for trial in trials]

    def _row(self, folder: Path, tuning: Tuned, held_out: str) -> dict[str, Any]:
        """The row of a scheme; one with a seed that diverged has no figures."""
        values = dict(zip(self._swept, tuning.best.values, strict=True))
        edges = {"at_edge": ", ".join(tuning.at_edge) or None} if self.sweep else {}
        runs = self._results(folder, tuning.best.scheme, tuning.best.values)
        done = [run for run in runs if run is not None]
        figures = _figures(done, held_out) if len(done) == len(runs) else {held_out: None}
        return {"scheme": tuning.best.scheme, **values, **edges, **figures}

    def _difference(self, row: dict[str, Any], rows: Rows) -> dict[str, Any]:
        """The columns of the difference to the reference, which has none itself; `None` where
        a run diverged, and for the interval of a single seed."""
        if self.reference is None:
            return {}
        reference = next(row for row in rows if row["scheme"] == self.reference)
        if row is reference or "seeds" not in row or "seeds" not in reference:
            return {"difference": None, "half_width": None}
        mean, half_width = paired_difference(row["seeds"], reference["seeds"])
        return {"difference": mean, "half_width": half_width}

    def _about_differences(self) -> str:
        if self.reference is None:
            return ""
        return (
            f"The difference is that to {self.reference}, seed by seed; its 95 % interval "
            "(Student) is difference ± half_width. "
        )


def scheme_config(base: dict[str, Any], change: dict[str, Any], where: str) -> Config:
    """The configuration of a run: the base with the sections of a scheme laid over it. A
    scheme that gives a `solver` gives the whole of it."""
    tree = dict(base)
    for section, values in change.items():
        replaced = section == "solver" or not isinstance(values, dict)
        tree[section] = values if replaced else {**tree.get(section, {}), **values}
    return training.validated(Config, tree, where)


def _with_steps(config: Config, steps: int) -> Config:
    section = config.training.model_copy(update={"steps": steps})
    return config.model_copy(update={"training": section})


def _figures(runs: list[dict[str, Any]], held_out: str) -> dict[str, Any]:
    """The figures of a scheme, from its runs."""
    losses = [run[held_out] for run in runs]
    part = held_out.removesuffix("loss")
    others = [name for name in runs[0] if name.startswith(part) and name != held_out]
    speeds = [
        np.median([x["tokens_per_second"] for x in run["log"] if "tokens_per_second" in x])
        for run in runs
    ]
    return {
        held_out: float(np.mean(losses)),
        "spread": float(np.std(losses, ddof=1)) if len(losses) > 1 else None,
        **{
            name.removeprefix(part): float(np.mean([run[name] for run in runs]))
            for name in others
        },
        "parameters": runs[0]["parameters"],
        "evaluations_per_step": float(np.mean([run["nfe"] for run in runs])),
        "steps": runs[0]["steps"],
        "field_evaluations": float(np.mean([run["nfe"] * run["steps"] for run in runs])),
        "tokens_per_second": float(np.median(speeds)),
        "seconds": float(np.median([run["seconds"] for run in runs])),
        "seeds": losses,
    }


def _losses(run: dict[str, Any], held_out: str) -> dict[int, float]:
    """By step; at the last one that of all samples."""
    logged = {line["step"]: line[held_out] for line in run["log"] if held_out in line}
    return {**logged, run["steps"]: run[held_out]}


def _about(sweep: Sweep | None) -> str:
    """Says what was tuned."""
    if sweep is None:
        return ""
    return (
        f"Of {', '.join(sweep.keys)} each scheme has the values with the lowest held-out loss "
        "for the first seed; sweep.json and a figure have all that were tried. A best value "
        "at the edge of those tried is named so. "
    )


def _write_sweep(folder: Path, sweep: Sweep, chosen: list[Tuned], label: str) -> None:
    """Writes `sweep.json`, and a figure for each key, with the loss called by its `label`."""
    tried = [trial for tuning in chosen for trial in tuning.losses.items()]
    rows = [
        {
            "scheme": trial.scheme,
            **dict(zip(sweep.keys, trial.values, strict=True)),
            "loss": loss if math.isfinite(loss) else None,
        }
        for trial, loss in tried
    ]
    write_json(folder / "sweep.json", rows)
    for number, key in enumerate(sweep.keys):
        curves = {}
        for best, losses, _ in chosen:
            # Along the key, through the best trial.
            line = {
                trial.values[number]: loss
                for trial, loss in losses.items()
                if math.isfinite(loss)
                and _without(trial.values, number) == _without(best.values, number)
            }
            curves[best.scheme] = [*zip(*sorted(line.items()), strict=True)] or ([], [])
        path = folder / f"sweep_{key}.png"
        plot_curves(path, curves, x=key, y=label, marker="o", log="x")


def _without(values: tuple[float, ...], number: int) -> tuple[float, ...]:
    return values[:number] + values[number + 1 :]
