"""The benchmarks at tiny sizes: what they write, and that they compare equal things."""

import json

import jax
import numpy as np
import pytest
from helpers import built, drawn, fast_first, largest
from running import run_here

import ide_transformer as ide
from benchmarks.march import SCHEMES, gradient_by_hand, plain_weights
from benchmarks.shared.problem import Shape, gradient_of_solve, pre_norm


SHAPE = Shape(batch=2, context=5, width=8, heads=2)
WIDTHS = "--batch 2 --width 8 --heads 2"
SIZES = f"{WIDTHS} --context 5 --depth 3"
TIMING = {"milliseconds", "spread", "time_ratio", "ratio_spread"}
MEASUREMENT = TIMING | {"mebibytes", "memory_ratio", "compile_seconds"}
NORMALIZED = MEASUREMENT | {"normalization", "depth"}
MESHES = "--width 8 --context 4 --batch 2 --steps 3 --depth 2 --meshes 1 3"


@pytest.mark.parametrize(
    ("command", "names", "columns"),
    fast_first(
        0,
        [
            (f"attention {WIDTHS} --tokens 5", 3, MEASUREMENT | {"tokens"}),
            (f"host {SIZES} --steps 4 --checkpoint-every 4", 2, TIMING | {"depth"}),
            ("decode --length 3", 2, TIMING | {"tokens_per_second", "same_tokens"}),
            (f"meshes {MESHES}", 2, TIMING),
            (f"gradient {SIZES} --normalization post-norm", 7, NORMALIZED),
            (f"march {SIZES} --scheme heun", 5, MEASUREMENT | {"scheme", "depth"}),
            (f"compile {SIZES}", 7, {"compile_seconds", "compile_spread", "depth"}),
        ],
        heavy=3,
    ),
    ids=lambda value: value.split()[0] if isinstance(value, str) else None,
)
def test_a_command_writes_its_rows_and_its_figure(
    command, names, columns, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("IDE_TRANSFORMER_CACHE", str(tmp_path))
    table, figure = tmp_path / "rows.json", tmp_path / "rows.png"
    files = "--rounds", 2, "--json", table, "--figure", figure
    run_here(capsys, "benchmark.py", *command.split(), *files)
    rows = json.loads(table.read_text())["rows"]
    assert len({row["name"] for row in rows}) == len(rows) == names
    assert all(set(row) >= columns | {"name"} for row in rows)
    assert all(row.get("depth", 3) == 3 and row.get("tokens", 5) == 5 for row in rows)
    assert rows[0].get("time_ratio", 1) == 1
    for column in ("milliseconds", "compile_seconds", "same_tokens", "tokens_per_second"):
        assert all(row.get(column, 1) > 0 for row in rows)
    assert figure.exists()


@pytest.mark.parametrize(
    ("name", "recomputing"),
    fast_first(1, [("lie_trotter(euler)", True), ("strang(heun)", False)]),
)
def test_a_scan_by_hand_equals_the_march(name, recomputing):
    """Values, and gradients with respect to every weight and the initial state."""
    solver, layer = SCHEMES[name]
    # Weights as a training begins with make operators so small that no error would show.
    control, domain = built(lambda: pre_norm(3, SHAPE).control), ide.TokenDomain.uniform(5)
    equation, u0 = ide.Equation(control, ide.Free(), domain), drawn((2, 5, 8), 1)
    policy = ide.Recompute().policy if recomputing else None
    program, arguments = gradient_by_hand(layer, equation, u0, policy)
    value, (weights, state) = jax.jit(program)(*arguments)
    program, arguments = gradient_of_solve(equation, solver, ide.Recompute(), u0)
    expected, ((control, _), expected_state) = jax.jit(program)(*arguments)
    assert abs(value - expected) < 1e-12 * abs(expected)
    assert largest(state, expected_state) < 1e-12
    expected_weights = plain_weights(ide.Equation(control, ide.Free(), domain))
    for key, found in weights.items():
        assert largest(found, expected_weights[key]) < 1e-12, key
        assert np.abs(found).max() > 1e-6, key
