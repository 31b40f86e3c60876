"""Schemes compared by training: the same data, seeds and budget for each."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import equinox as eqx
import jax
import numpy as np
from pydantic import Field, PositiveFloat, model_validator
from rich.console import Console

from ... import training
from ...errors import InputError
from ...models import AbstractModel
from ...reporting import plot_curves
from ...tasks import AbstractTask, Batch
from ...training import Config, RunFolder, Section, read_metrics
from ...training.types import Seed, folder_name
from .comparison import AbstractComparison, Rows


class Budget(Section):
    """The cost that every run of a comparison may have.

    - `unit`: `field_evaluations` (one is every operator once, over the whole depth as many
      as the scheme makes), `steps` of the optimiser, or `seconds` of training.
    - `amount`: how much.
    """

    unit: Literal["field_evaluations", "steps", "seconds"] = "steps"
    amount: PositiveFloat

    def __str__(self) -> str:
        return f"{self.amount:g} {self.unit.replace('_', ' ')}"

    def steps(self, config: Config, task: AbstractTask) -> int:
        """The optimiser steps of a run that the budget allows; the first batch is tried."""
        model = training.build_model(config, task, jax.random.key(config.training.seed))
        steps = round(self.amount / _COST_OF_A_STEP[self.unit](model, config, task))
        warmup = config.optimizer.warmup
        if not warmup < steps < 2**31:
            raise InputError(
                f"budget.amount={self.amount:g}: it makes {steps} optimiser steps; give what "
                f"makes more than optimizer.warmup={warmup} and less than 2147483648."
            )
        return steps


class TrainingComparison(AbstractComparison):
    """Each scheme trained from scratch on the same data, seeds and budget. A run that was
    interrupted goes on.

    - `base`: a configuration of a run, relative to this file.
    - `schemes`: name to the sections in which the scheme differs from the base.
    """

    mode: Literal["train"]
    base: Annotated[Path, Field(strict=False)]
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, strict=False)] = (0,)
    budget: Budget
    schemes: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]

    @model_validator(mode="after")
    def _each_run_once(self):
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds={list(self.seeds)}: give each of them once")
        for name in self.schemes:
            try:
                folder_name(_run_name(name, max(self.seeds)))
            except ValueError as error:
                raise ValueError(f"schemes.{name}: {error}") from None
        if len({_run_name(name, 0) for name in self.schemes}) < len(self.schemes):
            raise ValueError(
                f"schemes: two of {', '.join(self.schemes)} would share a folder, whose name "
                "has letters, digits and '.' only; rename one"
            )
        return self

    def placed(self, folder: Path) -> "TrainingComparison":
        return self.model_copy(update={"base": folder / self.base})

    def measure(self, folder: Path, console: Console) -> tuple[str, Rows]:
        configs, task = self._configs_and_task()
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
            training.train(run, runs=folder / "runs", resume=path.exists())
        held_out = f"{task.held_out_name}_loss"
        rows = [_row(name, runs, held_out) for name, runs in self._results(folder).items()]
        about = (
            f"Each scheme trained from scratch with {self.budget} for each of the seeds "
            f"{', '.join(map(str, self.seeds))}; otherwise as {self.base.name}. Loss and "
            "other figures are means over seeds on all held-out samples, the spread is the "
            "standard deviation of the loss. Times are medians and depend on what else the "
            "machine did."
        )
        return about, sorted(rows, key=lambda row: row[held_out])

    def draw(self, folder: Path, rows: Rows) -> None:
        """Learning curves, and the loss against what it cost."""
        held_out = next(column for column in rows[0] if column.endswith("_loss"))
        by_step, by_cost = {}, {}
        for name, runs in self._results(folder).items():
            curves = [_losses(run, held_out) for run in runs]
            steps, losses = np.array([*curves[0]]), np.mean([[*c.values()] for c in curves], 0)
            by_step[name] = (steps, losses)
            by_cost[name] = (steps * runs[0]["nfe"], losses)
        _, task = self._configs_and_task()
        y = f"{task.held_out_name} {task.loss.label}"
        plot_curves(folder / "loss_by_step.png", by_step, x="optimiser step", y=y)
        x = "field evaluations of the forward solve"
        plot_curves(folder / "loss_by_cost.png", by_cost, x=x, y=y)

    def _configs_and_task(self) -> tuple[dict[str, Config], AbstractTask]:
        """The configuration of each scheme, and the task, which is the same for all."""
        base = training.read_tree(self.base)
        configs = {
            name: scheme_config(base, change, f"{self.base} with schemes.{name}")
            for name, change in self.schemes.items()
        }
        return configs, training.build_task(next(iter(configs.values())))

    def _results(self, folder: Path) -> dict[str, list[dict[str, Any]]]:
        """The summary and the log of each scheme's runs, one for each seed."""

        def result(name: str) -> dict[str, Any]:
            run = RunFolder(folder / "runs" / name)
            summary = json.loads(run.summary.read_text(encoding="utf-8"))
            return {**summary, "log": read_metrics(run.metrics)}

        return {
            name: [result(_run_name(name, seed)) for seed in self.seeds]
            for name in self.schemes
        }


def scheme_config(base: dict[str, Any], change: dict[str, Any], where: str) -> Config:
    """The configuration of a run: the base with the sections of a scheme laid over it. A
    scheme that gives a `solver` gives the whole of it."""
    tree = dict(base)
    for section, values in change.items():
        replaced = section == "solver" or not isinstance(values, dict)
        tree[section] = values if replaced else {**tree.get(section, {}), **values}
    return training.validated(Config, tree, where)


def _with_training(config: Config, **change: Any) -> Config:
    section = config.training.model_copy(update=change)
    return config.model_copy(update={"training": section})


def _run_name(scheme: str, seed: int) -> str:
    """A folder name for a run; names of schemes may have parentheses and spaces."""
    return f"{re.sub(r'[^A-Za-z0-9.]+', '_', scheme).strip('_')}-seed{seed}"


def _row(name: str, runs: list[dict[str, Any]], held_out: str) -> dict[str, Any]:
    """The row of a scheme, from its runs."""
    losses = [run[held_out] for run in runs]
    part = held_out.removesuffix("loss")
    figures = [name for name in runs[0] if name.startswith(part) and name != held_out]
    speeds = [
        np.median([x["tokens_per_second"] for x in run["log"] if "tokens_per_second" in x])
        for run in runs
    ]
    return {
        "scheme": name,
        held_out: float(np.mean(losses)),
        "spread": float(np.std(losses, ddof=1)) if len(losses) > 1 else None,
        **{name.removeprefix(part): _mean(runs, name) for name in figures},
        "parameters": runs[0]["parameters"],
        "evaluations_per_step": float(np.mean([run["nfe"] for run in runs])),
        "steps": runs[0]["steps"],
        "field_evaluations": float(np.mean([run["nfe"] * run["steps"] for run in runs])),
        "tokens_per_second": float(np.median(speeds)),
        "seconds": float(np.median([run["seconds"] for run in runs])),
        "seeds": losses,
    }


def _mean(runs: list[dict[str, Any]], name: str) -> float:
    return float(np.mean([run[name] for run in runs]))


def _losses(run: dict[str, Any], held_out: str) -> dict[int, float]:
    """By step; at the last one that of all samples."""
    logged = {line["step"]: line[held_out] for line in run["log"] if held_out in line}
    return {**logged, run["steps"]: run[held_out]}


def _batch(step: int, config: Config, task: AbstractTask) -> Batch:
    return task.batch(step, config.training.batch_size, config.training.seed)


def _steps(model: AbstractModel, config: Config, task: AbstractTask) -> float:
    """One, for a first batch that fits the model."""
    eqx.filter_eval_shape(task.loss, model, _batch(0, config, task))
    return 1.0


def _field_evaluations(model: AbstractModel, config: Config, task: AbstractTask) -> float:
    """Where the number depends on the state, that of the untrained model is taken."""
    loss: Any = eqx.filter_jit(task.loss)(model, _batch(0, config, task))
    return float(loss.field_evaluations)


def _seconds(model: AbstractModel, config: Config, task: AbstractTask) -> float:
    """Median time of an optimiser step."""
    optimizer = training.build_optimizer(config.optimizer, config.training.steps)
    state, static = training.initial_state(model, optimizer, jax.random.key(0))
    noisy, transport = config.model.dropout > 0, config.training.transport
    step = training.make_train_step(
        optimizer, static, task.loss, noisy=noisy, transport=transport
    )
    seconds = []
    for index in range(12):
        batch = _batch(index, config, task)
        began = time.perf_counter()
        state, metrics = step(state, batch)
        jax.block_until_ready(metrics)
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds[2:]))


# From the unit of a budget to that of one step.
_COST_OF_A_STEP: dict[str, Callable[[AbstractModel, Config, AbstractTask], float]] = {
    "steps": _steps,
    "field_evaluations": _field_evaluations,
    "seconds": _seconds,
}
