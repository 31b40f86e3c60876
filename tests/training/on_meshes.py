"""Runs on 8 virtual devices, for a process of its own: reads a list of runs, each a list of
overrides, and writes their losses and the bytes on each device."""

import json
import os
import sys
from pathlib import Path


os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_NUM_CPU_DEVICES": "8"}

import jax

from ide_transformer import training
from ide_transformer.training import read_metrics, reading, run as run_module


TEXT = "the sea is wide and the night is long and the wind is cold. " * 40


def base(there: Path, steps: int = 20) -> dict:
    text = there / "text.txt"
    text.write_text(TEXT)
    return {
        "name": "small",
        "data": {"name": "text", "path": str(text)},
        "model": {"width": 16, "heads": 2, "depth": 2, "context": 8},
        "optimizer": {"warmup": 2, "learning_rate": 0.01},
        "training": {
            "steps": steps,
            "batch_size": 8,
            "log_every": 1,
            "checkpoint_every": 10,
            "evaluate_every": 10,
            "evaluate_samples": 8,
            "sample": 0,
        },
    }


def configured(there: Path, overrides: list[str], steps: int = 20) -> training.Config:
    tree = base(there, steps)
    reading.apply_overrides(tree, overrides)
    return training.Config.model_validate(tree)


def losses(folder: training.RunFolder) -> list[float]:
    return [line["loss"] for line in read_metrics(folder.metrics) if "loss" in line]


def main() -> None:
    there, runs = Path(sys.argv[1]), json.loads(sys.argv[2])
    run_module.plot_run = lambda *_: None
    results = []
    for overrides in runs:
        folder = training.train(configured(there, overrides), runs=there / "runs")
        results.append({"losses": losses(folder), "folder": str(folder.path)})
        jax.clear_caches()
    (there / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
