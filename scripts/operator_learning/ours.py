"""A run of this package."""

from pathlib import Path
from typing import Any

import jax

from ide_transformer import training

from .settings import Cell, Test


CONFIGS = Path(__file__).parents[2] / "configs"


def train_and_test(
    cell: Cell, rate: float, seed: int, steps: int, tests: dict[str, Test], runs: Path
) -> dict[str, Any]:
    """Trains a run, or resumes it, and returns its errors, parameters and seconds."""
    settings = settings_of(cell, rate, seed, steps)
    path = runs / settings.name
    if not (path / "summary.json").is_file():
        training.train(settings, runs=runs, resume=path.exists())
    loaded = training.load_model(path)
    summary = training.RunFolder(path).load_summary()
    found = {
        name: training.evaluate_on(loaded.model, cell.task(test), None, "test")["loss"]
        for name, test in tests.items()
    }
    # The number of compiled programs that a process may hold is limited.
    jax.clear_caches()
    kept = {key: summary[key] for key in ("validation_loss", "parameters", "seconds")}
    return {**kept, **found}


def settings_of(cell: Cell, rate: float, seed: int, steps: int) -> training.Config:
    """The configuration of a run."""
    options = ", ".join(f"{key}: {value}" for key, value in cell.options.items())
    name = f"{cell.name}_{rate:g}_{seed}_{steps}"
    overrides = [
        *(f"name={name}", f"data.options={{{options}}}", f"optimizer.learning_rate={rate}"),
        *(f"training.steps={steps}", f"training.seed={seed}", "training.keep_best=false"),
        *(f"optimizer.warmup={min(100, steps // 5)}", f"training.evaluate_every={steps}"),
        f"training.checkpoint_every={steps}",
    ]
    waves = "_waves" if cell.model == "waves" else ""
    return training.load_config(CONFIGS / f"{cell.bed}{waves}.yaml", overrides)
