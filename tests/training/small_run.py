"""A small run on a text."""

from ide_transformer import training


TEXT = "the sea is wide and the night is long and the wind is cold. " * 40


def config(text, steps=4):
    return training.Config.model_validate(
        {
            "name": "small",
            "data": {"name": "text", "path": str(text)},
            "model": {"width": 16, "heads": 2, "depth": 1, "context": 8},
            "optimizer": {"warmup": 1},
            "training": {
                "steps": steps,
                "batch_size": 4,
                "log_every": 1,
                "checkpoint_every": 2,
                "sample": 0,
            },
        }
    )


def contents(there):
    return {p: p.read_bytes() for p in sorted(there.rglob("*")) if p.is_file()}
