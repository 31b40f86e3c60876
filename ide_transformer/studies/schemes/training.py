"""Schemes compared by training: the same data, seeds and budget for each."""

import json
import re
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from rich.console import Console

from ...reporting import plot_curves
from ...reporting.report import Report, write_report
from ...tasks import AbstractTask, cross_entropy
from ...training import (
    Config,
    RunFolder,
    build_model,
    build_optimizer,
    build_task,
    initial_state,
    make_train_step,
    read_metrics,
    train,
)
from ...training.reading import read_tree
from .config import Budget, TrainingComparison, scheme_config


def compare_training(config: TrainingComparison, runs: Path) -> Report:
    """Trains each scheme with each seed and writes the report into `runs/<name>/`.

    A run that is there already is not made again, one that was interrupted goes on.

    **Raises:** `InputError` for input that cannot be used, before anything is trained.
    """
    folder = runs / config.name
    console = Console(highlight=False, soft_wrap=True)
    base = read_tree(config.base)
    bases = {
        name: scheme_config(base, change, f"{config.base} with schemes.{name}")
        for name, change in config.schemes.items()
    }
    task = build_task(next(iter(bases.values())))
    plans = {name: _plan(c, config.budget, task) for name, c in bases.items()}
    jobs = [(name, seed) for seed in config.seeds for name in plans]
    began = time.perf_counter()
    for done, (name, seed) in enumerate(jobs):
        run = _configured(plans[name], _run_name(name, seed), seed)
        if RunFolder(folder / "runs" / run.name).summary.exists():
            continue
        elapsed = time.perf_counter() - began
        left = f", {elapsed / done * (len(jobs) - done) / 60:.0f} min left" if done else ""
        console.print(f"[{done + 1}/{len(jobs)}] {run.name}{left}", markup=False)
        started = (folder / "runs" / run.name).exists()
        train(run, runs=folder / "runs", resume=started)
    results = {
        name: [_result(folder / "runs" / _run_name(name, seed)) for seed in config.seeds]
        for name in plans
    }
    report = _report(config, results)
    write_report(folder, report)
    _plot(folder, results, report.held_out)
    return report


def _plan(config: Config, budget: Budget, task: AbstractTask) -> Config:
    """The configuration with the steps that the budget allows; the first batch is tried."""
    key = jax.random.key(config.training.seed)
    model = build_model(config, task, key)
    batch = task.batch(0, config.training.batch_size, config.training.seed)
    match budget.unit:
        case "steps":
            eqx.filter_eval_shape(cross_entropy, model, batch)
            steps = budget.amount
        case "field_evaluations":
            # Where the number depends on the state, that of the untrained model is taken.
            steps = budget.amount / float(eqx.filter_jit(cross_entropy)(model, batch)[-1])
        case "seconds":
            steps = budget.amount / _seconds_per_step(config, task, model)
    steps = max(round(steps), config.optimizer.warmup + 1)
    return _with(config, {"steps": steps})


def _seconds_per_step(config: Config, task: AbstractTask, model: Any) -> float:
    """Median time of an optimiser step."""
    optimizer = build_optimizer(config.optimizer, config.training.steps)
    state, static = initial_state(model, optimizer, jax.random.key(0))
    step = make_train_step(
        optimizer,
        static,
        noisy=config.model.dropout > 0,
        transport=config.training.transport,
    )
    seconds = []
    for index in range(12):
        batch = task.batch(index, config.training.batch_size, config.training.seed)
        began = time.perf_counter()
        state, metrics = step(state, batch)
        jax.block_until_ready(metrics)
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds[2:]))


def _run_name(scheme: str, seed: int) -> str:
    """A folder name for a run; names of schemes may have parentheses and spaces."""
    return f"{re.sub(r'[^A-Za-z0-9.]+', '_', scheme).strip('_')}-seed{seed}"


def _configured(config: Config, name: str, seed: int) -> Config:
    return _with(config, {"seed": seed, "sample": 0}).model_copy(update={"name": name})


def _with(config: Config, change: dict[str, Any]) -> Config:
    training = config.training.model_copy(update=change)
    return config.model_copy(update={"training": training})


def _result(path: Path) -> dict[str, Any]:
    """What one run measured: its summary and its log."""
    folder = RunFolder(path)
    summary = json.loads(folder.summary.read_text(encoding="utf-8"))
    log = read_metrics(folder.metrics)
    rates = [line["tokens_per_second"] for line in log if "tokens_per_second" in line]
    learned = {k: v for k, v in log[-1].items() if k.startswith("solver.")}
    return {**summary, "tokens_per_second": float(np.median(rates)), "log": log, **learned}


def _report(config: TrainingComparison, results: dict[str, list[dict]]) -> Report:
    held_out = next(k for k in next(iter(results.values()))[0] if k.endswith("_loss"))
    rows = []
    for name, runs in results.items():
        losses = [run[held_out] for run in runs]
        row = {
            "scheme": name,
            held_out: float(np.mean(losses)),
            "spread": float(np.std(losses, ddof=1)) if len(losses) > 1 else None,
            "accuracy": float(np.mean([run[held_out[:-4] + "accuracy"] for run in runs])),
            "parameters": runs[0]["parameters"],
            "evaluations_per_step": float(np.mean([run["nfe"] for run in runs])),
            "steps": runs[0]["steps"],
            "field_evaluations": float(np.mean([run["nfe"] * run["steps"] for run in runs])),
            "tokens_per_second": float(np.median([run["tokens_per_second"] for run in runs])),
            "seconds": float(np.median([run["seconds"] for run in runs])),
            "seeds": losses,
        }
        rows.append(row)
    rows.sort(key=lambda row: row[held_out])
    about = (
        f"Each scheme trained from scratch with {config.budget.amount:g} "
        f"{config.budget.unit.replace('_', ' ')} for each of the seeds "
        f"{', '.join(map(str, config.seeds))}; otherwise as {config.base.name}. Loss and "
        "accuracy are means over seeds on all held-out samples, the spread is the standard "
        "deviation; times are medians and depend on what else the machine did."
    )
    return Report(config.name, about, rows, held_out)


def _plot(folder: Path, results: dict[str, list[dict]], held_out: str) -> None:
    """Learning curves, and the loss against what it cost."""
    by_step, by_cost = {}, {}
    for name, runs in results.items():
        lines = [line for line in runs[0]["log"] if held_out in line]
        steps = [line["step"] for line in lines] + [runs[0]["steps"]]
        losses = [
            float(np.mean([_held_out(run, held_out)[i] for run in runs]))
            for i in range(len(steps))
        ]
        by_step[name] = (steps, losses)
        by_cost[name] = (np.array(steps) * runs[0]["nfe"], losses)
    y = f"{held_out.replace('_', ' ')} (nats)"
    plot_curves(folder / "loss_by_step.png", by_step, x="optimiser step", y=y)
    plot_curves(
        folder / "loss_by_cost.png", by_cost, x="field evaluations of the forward solve", y=y
    )


def _held_out(run: dict, held_out: str) -> list[float]:
    return [line[held_out] for line in run["log"] if held_out in line] + [run[held_out]]
