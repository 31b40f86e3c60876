"""Schemes compared by training: the same data, seeds and budget for each."""

import json
import re
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field
from rich.console import Console

from ...reporting import plot_curves
from ...training import Config, RunFolder, build_task, read_metrics, train
from ...training.config import NonNegativeInt
from ...training.reading import read_tree, validated
from .budget import Budget
from .comparison import AbstractComparison, Rows


class TrainingComparison(AbstractComparison):
    """Each scheme trained from scratch on the same data, seeds and budget. A run that was
    interrupted goes on.

    - `base`: a configuration of a run, relative to this file.
    - `schemes`: name to the sections in which the scheme differs from the base.
    """

    mode: Literal["train"]
    base: Path
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = (0,)
    budget: Budget
    schemes: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]

    def placed(self, folder: Path) -> "TrainingComparison":
        return self.model_copy(update={"base": folder / self.base})

    def measure(self, folder: Path, console: Console) -> tuple[str, Rows]:
        base = read_tree(self.base)
        configs = {
            name: scheme_config(base, change, f"{self.base} with schemes.{name}")
            for name, change in self.schemes.items()
        }
        task = build_task(next(iter(configs.values())))
        plans = {
            name: _with_training(config, steps=self.budget.steps(config, task))
            for name, config in configs.items()
        }
        jobs = [(name, seed) for seed in self.seeds for name in plans]
        began = time.perf_counter()
        for done, (name, seed) in enumerate(jobs):
            run = _with_training(plans[name], seed=seed, sample=0)
            run = run.model_copy(update={"name": _run_name(name, seed)})
            path = folder / "runs" / run.name
            if RunFolder(path).summary.exists():
                continue
            elapsed = time.perf_counter() - began
            left = f", {elapsed / done * (len(jobs) - done) / 60:.0f} min left" if done else ""
            console.print(f"[{done + 1}/{len(jobs)}] {run.name}{left}", markup=False)
            train(run, runs=folder / "runs", resume=path.exists())
        held_out = f"{task.held_out_name}_loss"
        rows = [_row(name, runs, held_out) for name, runs in self._results(folder).items()]
        about = (
            f"Each scheme trained from scratch with {self.budget} for each of the seeds "
            f"{', '.join(map(str, self.seeds))}; otherwise as {self.base.name}. Loss and "
            "accuracy are means over seeds on all held-out samples, the spread is the standard "
            "deviation. Times are medians and depend on what else the machine did."
        )
        return about, sorted(rows, key=lambda row: row[held_out])

    def draw(self, folder: Path, rows: Rows) -> None:
        """Learning curves, and the loss against what it cost."""
        held_out = next(column for column in rows[0] if column.endswith("_loss"))
        by_step, by_cost = {}, {}
        for name, runs in self._results(folder).items():
            steps = [line["step"] for line in runs[0]["log"] if held_out in line]
            steps.append(runs[0]["steps"])
            losses = np.mean([_losses(run, held_out) for run in runs], axis=0)
            by_step[name] = (steps, losses)
            by_cost[name] = (np.array(steps) * runs[0]["nfe"], losses)
        y = f"{held_out.replace('_', ' ')} (nats)"
        plot_curves(folder / "loss_by_step.png", by_step, x="optimiser step", y=y)
        x = "field evaluations of the forward solve"
        plot_curves(folder / "loss_by_cost.png", by_cost, x=x, y=y)

    def _results(self, folder: Path) -> dict[str, list[dict[str, Any]]]:
        """The results of each scheme, one for each seed."""
        return {
            name: [_result(folder / "runs" / _run_name(name, seed)) for seed in self.seeds]
            for name in self.schemes
        }


def scheme_config(base: dict[str, Any], change: dict[str, Any], where: str) -> Config:
    """The configuration of a run: the base with the sections of a scheme laid over it. A
    scheme that gives a `solver` gives the whole of it."""
    tree = dict(base)
    for section, values in change.items():
        replaced = section == "solver" or not isinstance(values, dict)
        tree[section] = values if replaced else {**tree.get(section, {}), **values}
    return validated(Config, tree, where)


def _with_training(config: Config, **change: Any) -> Config:
    training = config.training.model_copy(update=change)
    return config.model_copy(update={"training": training})


def _run_name(scheme: str, seed: int) -> str:
    """A folder name for a run; names of schemes may have parentheses and spaces."""
    return f"{re.sub(r'[^A-Za-z0-9.]+', '_', scheme).strip('_')}-seed{seed}"


def _result(path: Path) -> dict[str, Any]:
    """The summary of a run and its log."""
    folder = RunFolder(path)
    summary = json.loads(folder.summary.read_text(encoding="utf-8"))
    return {**summary, "log": read_metrics(folder.metrics)}


def _row(name: str, runs: list[dict[str, Any]], held_out: str) -> dict[str, Any]:
    """The row of a scheme, from its runs."""
    losses = [run[held_out] for run in runs]
    accuracy = held_out.removesuffix("loss") + "accuracy"
    speeds = [
        np.median([x["tokens_per_second"] for x in run["log"] if "tokens_per_second" in x])
        for run in runs
    ]
    return {
        "scheme": name,
        held_out: float(np.mean(losses)),
        "spread": float(np.std(losses, ddof=1)) if len(losses) > 1 else None,
        "accuracy": float(np.mean([run[accuracy] for run in runs])),
        "parameters": runs[0]["parameters"],
        "evaluations_per_step": float(np.mean([run["nfe"] for run in runs])),
        "steps": runs[0]["steps"],
        "field_evaluations": float(np.mean([run["nfe"] * run["steps"] for run in runs])),
        "tokens_per_second": float(np.median(speeds)),
        "seconds": float(np.median([run["seconds"] for run in runs])),
        "seeds": losses,
    }


def _losses(run: dict[str, Any], held_out: str) -> list[float]:
    return [line[held_out] for line in run["log"] if held_out in line] + [run[held_out]]
