"""One set of weights solved by several schemes."""

import json

import numpy as np
import pytest
import yaml
from running import run_here

from ide_transformer import load_run
from ide_transformer.training import run_task


def test_schemes_solve_the_weights_of_a_run(tiny_run, tmp_path, capsys):
    """The equation of the run is `u' = -c u`: a step multiplies by `1 - c h`, and of Heun's
    method by `1 - c h + (c h)² / 2`."""
    tree = {
        **{"mode": "solve", "run": str(tiny_run), "samples": 4, "rounds": 2},
        **{"reference": {"kind": "rk4", "steps_per_interval": 64}, "tolerance": 0.01},
        "schemes": {
            "euler": {"solver": "euler", "steps": [1]},
            "heun": {"solver": "heun", "steps": [1]},
            "adaptive": {"solver": "tsit5", "tolerances": [0.01]},
        },
    }
    path, folder = tmp_path / "small.yaml", tmp_path / "compare/small"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    command = "compare.py", path, "--runs", tmp_path / "compare"
    run_here(capsys, *command)
    rows = json.loads((folder / "report.json").read_text())["rows"]
    model, run = load_run(tiny_run)
    u0 = np.asarray(model.inputs.embed(next(run_task(run).held_out(4)).inputs)[0])
    c = np.asarray(model.control.blocks[0].rate, np.float64)  # [layers, features]
    exact = u0 * np.prod(np.exp(-c), axis=0)
    factors = 1 - c, 1 - c + c**2 / 2
    for row, factor in zip(rows, factors, strict=False):
        error = np.linalg.norm(u0 * np.prod(factor, axis=0) - exact) / np.linalg.norm(exact)
        assert row["error"] == pytest.approx(error, rel=1e-3)
    assert [row["field_evaluations"] for row in rows[:2]] == [4, 8]
    assert all(row["mebibytes"] > 0 and row["milliseconds"] > 0 for row in rows)
    assert (folder / "work_precision_field_evaluations.png").exists()
    # A reference that is no better than what it judges is refused.
    poor = {"reference": {"kind": "euler", "steps_per_interval": 2}, "tolerance": 1e-6}
    path.write_text(yaml.safe_dump({**tree, **poor}))
    assert "more than tolerance=1e-06" in run_here(capsys, *command, expected=2)
