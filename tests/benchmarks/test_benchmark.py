"""The benchmarks at tiny sizes: what they write, and that they compare equal things."""

import json

import jax
import numpy as np
import pytest
from helpers import fast_first, largest
from running import run_here

from benchmarks.shared.problem import Shape
from benchmarks.with_torch.ours import OwnTraining, Setting


SHAPE = Shape(batch=2, context=5, width=8, heads=2)
WIDTHS = "--batch 2 --width 8 --heads 2"
SIZES = f"{WIDTHS} --context 5 --depth 3"
MESHES = "--width 8 --context 4 --batch 2 --steps 3 --depth 2 --meshes 1 3"


@pytest.mark.parametrize(
    "command",
    fast_first(
        0,
        [
            f"march {SIZES} --scheme heun",
            f"host {SIZES} --steps 4 --checkpoint-every 4",
            "decode --length 3",
            f"meshes {MESHES}",
            f"gradient {SIZES} --normalization post-norm",
            f"attention {WIDTHS} --tokens 5",
            f"compile {SIZES}",
        ],
        heavy=3,
    ),
)
def test_a_command_writes_its_rows_and_its_figure(command, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("IDE_TRANSFORMER_CACHE", str(tmp_path))
    table, figure = tmp_path / "rows.json", tmp_path / "rows.png"
    files = "--rounds", 2, "--json", table, "--figure", figure
    run_here(capsys, "benchmark.py", *command.split(), *files)
    rows = json.loads(table.read_text())["rows"]
    assert len({row["name"] for row in rows}) == len(rows) > 1
    assert rows[0].get("time_ratio", 1) == 1
    for column in ("milliseconds", "compile_seconds", "same_tokens", "tokens_per_second"):
        assert all(row.get(column, 1) > 0 for row in rows)
    assert figure.exists()


@pytest.mark.heavy
def test_pytorch_learns_the_same():
    """The loss over some AdamW steps, and every weight after them."""
    pytest.importorskip("torch")
    from benchmarks.with_torch.theirs import TorchTraining

    jax.config.update("jax_enable_x64", False)
    try:
        setting = Setting(2, 3, 6, 16, heads=2, vocabulary=11)
        ours = OwnTraining(setting)
        torch = TorchTraining(
            *(setting, ours.initial_weights, ours.batches),
            *(setting.config.optimizer, ours.learning_rates(), False),
        )
        steps = 5
        np.testing.assert_allclose(ours.losses(steps), torch.losses(steps), rtol=1e-5)
        found, expected = ours.state(), torch.state()
    finally:
        jax.config.update("jax_enable_x64", True)
    assert set(found) == set(expected)
    for name, weight in found.items():
        assert largest(weight, expected[name]) < 1e-5, name
        moved = np.abs(weight - ours.initial_weights[name]).max()
        assert moved > 1e-5, name
