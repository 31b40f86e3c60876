"""The benchmarks at tiny sizes: what they write, and that they compare equal things."""

import json
import runpy
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import SCRIPTS, largest

import ide_transformer as ide
from benchmarks import SCHEMES, Setting, Shape, against_torch, handwritten
from benchmarks.march import gradient_by_hand, plain_weights
from benchmarks.own_training import OwnTraining
from benchmarks.problem import gradient_of_solve, pre_norm
from benchmarks.resident import peak_resident_mebibytes


SCRIPT = SCRIPTS / "benchmark.py"
SHAPE = Shape(batch=2, context=5, width=8, heads=2)
SIZES = ("--batch", "2", "--context", "5", "--width", "8", "--heads", "2", "--rounds", "2")
TIMING = {"milliseconds", "spread", "time_ratio", "ratio_spread"}
MEASUREMENT = TIMING | {"mebibytes", "memory_ratio", "compile_seconds"}


@pytest.fixture
def run(monkeypatch):
    """Runs the script in this process, which has what it imports already."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
        runpy.run_path(str(SCRIPT), run_name="__main__")

    return run


@pytest.mark.parametrize(
    ("arguments", "names", "columns"),
    [
        (("march", "--scheme", "heun", "--depth", "3"), 5, MEASUREMENT | {"scheme", "depth"}),
        (
            ("gradient", "--normalization", "post-norm", "--depth", "3"),
            7,
            MEASUREMENT | {"normalization", "depth"},
        ),
        pytest.param(
            *(("compile", "--depth", "3"), 7, {"compile_seconds", "compile_spread", "depth"}),
            marks=pytest.mark.heavy,
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_a_command_writes_its_rows_and_its_figure(
    arguments, names, columns, tmp_path, run, capsys
):
    table, figure = tmp_path / "rows.json", tmp_path / "rows.png"
    run(*arguments, *SIZES, "--json", table, "--figure", figure)
    shown = capsys.readouterr().out
    rows = json.loads(table.read_text())
    assert len({row["name"] for row in rows}) == len(rows) == names
    assert all(set(row) == columns | {"name"} and row["depth"] == 3 for row in rows)
    assert all(row["compile_seconds"] > 0 for row in rows)
    assert all(row["name"].split(",")[0] in shown for row in rows)
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_too_few_rounds_are_refused(run, capsys):
    with pytest.raises(SystemExit, match="2"):
        run("march", *SIZES, "--rounds", "1", "--depth", "1")
    assert "error: rounds=1" in capsys.readouterr().err


def large_equation():
    """Weights as they are drawn make operators so small that an error in one would not show."""
    equation = pre_norm(3, SHAPE)
    control = jax.tree.map(lambda x: 15 * x if x.ndim == 3 else 0.7 * x, equation.control)
    return ide.Equation(control, ide.Free(), equation.domain)


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("recomputing", [False, True])
def test_a_scan_by_hand_equals_the_march(name, recomputing):
    """Values, and gradients with respect to every weight and the initial state."""
    solver, layer = SCHEMES[name]
    equation, u0 = large_equation(), SHAPE.state()
    policy = ide.Recompute().policy if recomputing else None
    program, arguments = gradient_by_hand(layer, equation, u0, policy)
    value, (weights, state) = jax.jit(program)(*arguments)
    program, arguments = gradient_of_solve(equation, solver, ide.Recompute(), u0)
    expected, ((control, _), expected_state) = jax.jit(program)(*arguments)
    assert abs(value - expected) < 1e-12 * abs(expected)
    assert largest(state, expected_state) < 1e-12
    expected_weights = plain_weights(ide.Equation(control, ide.Free(), equation.domain))
    for key, found in weights.items():
        assert largest(found, expected_weights[key]) < 1e-12, key
        assert float(jnp.abs(found).max()) > 1e-6, key


def test_schemes_by_hand_differ():
    """Else the comparison of one with the march would say nothing about the others."""
    equation, u0 = large_equation(), SHAPE.state()
    weights = plain_weights(equation)
    ends = [
        handwritten.scanned(layer, lambda w: handwritten.fields(w, SHAPE.heads), weights, u0)
        for _, layer in SCHEMES.values()
    ]
    assert all(largest(ends[i], ends[i - 1]) > 1e-2 for i in range(3))


def test_the_rise_of_resident_memory_is_seen():
    rise = peak_resident_mebibytes(lambda: np.ones(2**23))
    if rise is None:
        pytest.skip("the operating system does not tell")
    assert 60 < rise < 100


@pytest.mark.heavy
def test_pytorch_learns_the_same():
    """The loss over some AdamW steps, and every weight after them."""
    pytest.importorskip("torch")
    from benchmarks.torch_training import TorchTraining

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


@pytest.mark.heavy
def test_training_against_pytorch_in_paired_processes():
    pytest.importorskip("torch")
    setting = Setting(1, 2, 6, 16, heads=2, vocabulary=11)
    rows = against_torch(setting, rounds=2, steps=1, curve=3)
    assert [row["name"] for row in rows] == ["torch eager", "torch.compile", "ide_transformer"]
    columns = {"tokens_per_second", "mebibytes", "loss", "loss_difference", "utilisation"}
    for row in rows:
        assert set(row) == TIMING | columns | {"setting", "name"}
        assert row["loss_difference"] < 1e-5 and row["tokens_per_second"] > 0


def test_without_pytorch_the_command_to_install_it_is_told(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ide.InputError, match=r"pip install -e '\.\[reference\]'"):
        against_torch(Setting(1, 2, 6, 16), rounds=2, steps=1, curve=1)
