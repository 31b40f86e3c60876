"""Tiny runs on a text, logged at every step, that tests of devices and processes share."""

from pathlib import Path

from ide_transformer import training
from ide_transformer.training import read_metrics, reading


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
            "keep_best": False,
            "sample": 0,
        },
    }


def configured(there: Path, overrides: list[str]) -> training.Config:
    tree = base(there)
    reading.apply_overrides(tree, overrides)
    return training.Config.model_validate(tree)


def losses(folder: Path) -> list[float]:
    return [x["loss"] for x in read_metrics(folder / "metrics.jsonl") if "loss" in x]
