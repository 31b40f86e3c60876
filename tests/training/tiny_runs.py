"""Runs of 20 steps on a text, logged at every step."""

from pathlib import Path

from training import stub

from ide_transformer import training
from ide_transformer.training import reading


TEXT = "the sea is wide and the night is long and the wind is cold. " * 40


def base(there: Path, steps: int = 20) -> dict:
    (there / "text.txt").write_text(TEXT)
    return stub.tree(
        data={"name": "text", "path": str(there / "text.txt")},
        model={"width": 16, "context": 8},
        optimizer={"warmup": 2},
        training={
            **{"steps": steps, "batch_size": 8, "evaluate_samples": 8},
            **{"checkpoint_every": 10, "evaluate_every": 10},
        },
    )


def configured(there: Path, overrides: list[str]) -> training.Config:
    tree = base(there)
    reading.apply_overrides(tree, overrides)
    return training.Config.model_validate(tree)
