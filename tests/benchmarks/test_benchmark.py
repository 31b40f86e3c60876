"""The benchmarks at tiny sizes: what they write, and that they compare equal things."""

import contextlib
import itertools
import json
import runpy
import sys
import threading
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import SCRIPTS, fast_first, largest

import benchmarks
import ide_transformer as ide
from benchmarks.host import _Gate
from benchmarks.march import SCHEMES, gradient_by_hand, plain_weights
from benchmarks.shared import handwritten
from benchmarks.shared.problem import Shape, gradient_of_solve, pre_norm
from benchmarks.with_torch.processes import peak_resident_mebibytes
from ide_transformer.training.stopping import Stopped


SCRIPT = SCRIPTS / "benchmark.py"
SHAPE = Shape(batch=2, context=5, width=8, heads=2)
WIDTHS = ("--batch", "2", "--width", "8", "--heads", "2", "--rounds", "2")
SIZES = (*WIDTHS, "--context", "5", "--depth", "3")
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
    fast_first(
        1,
        [
            (("attention", *WIDTHS, "--tokens", "5"), 3, MEASUREMENT | {"tokens"}),
            (("march", *SIZES, "--scheme", "heun"), 5, MEASUREMENT | {"scheme", "depth"}),
            (
                ("gradient", *SIZES, "--normalization", "post-norm"),
                7,
                MEASUREMENT | {"normalization", "depth"},
            ),
            (("compile", *SIZES), 7, {"compile_seconds", "compile_spread", "depth"}),
        ],
        heavy=1,
    ),
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_a_command_writes_its_rows_and_its_figure(
    arguments, names, columns, tmp_path, run, capsys
):
    table, figure = tmp_path / "rows.json", tmp_path / "rows.png"
    run(*arguments, "--json", table, "--figure", figure)
    shown = capsys.readouterr().out
    rows = json.loads(table.read_text())
    assert len({row["name"] for row in rows}) == len(rows) == names
    assert all(set(row) == columns | {"name"} for row in rows)
    assert all(row.get("depth", 3) == 3 and row.get("tokens", 5) == 5 for row in rows)
    assert all(row["compile_seconds"] > 0 for row in rows)
    assert all(row["name"].split(",")[0] in shown for row in rows)
    assert figure.read_bytes().startswith(b"\x89PNG")


@pytest.mark.heavy
def test_a_run_is_measured_against_its_compiled_step(tmp_path, run):
    table = tmp_path / "rows.json"
    run("host", *SIZES, "--steps", "4", "--checkpoint-every", "4", "--json", table)
    rows = json.loads(table.read_text())
    assert [row["name"] for row in rows] == ["compiled step", "run"]
    assert all(set(row) == TIMING | {"name", "depth"} for row in rows)
    assert rows[0]["time_ratio"] == 1 and rows[1]["milliseconds"] > 0


def test_each_turn_of_a_run_has_its_checkpoint_and_ends_when_that_is_written():
    events = []
    gate = _Gate(first=2, steps=4, finish=lambda: events.append("written"))

    def loop():
        with contextlib.suppress(Stopped):
            for step in itertools.count(1):
                events.append(step)
                if step % 4 == 0:
                    events.append("checkpoint")
                gate.check(f"Stopped after step {step}")

    thread = threading.Thread(target=loop)
    thread.start()
    gate.wait()
    assert events == [1, 2, "written"]
    for first in (3, 7, 11):
        events.clear()
        assert gate.turn() > 0
        turn = [first, first + 1, "checkpoint", first + 2, first + 3, "written"]
        assert events == turn
    gate.open()
    thread.join()


def test_turns_with_different_numbers_of_checkpoints_are_refused(run, capsys):
    with pytest.raises(SystemExit, match="2"):
        run("host", "--steps", "100", "--checkpoint-every", "80")
    shown = capsys.readouterr().err
    assert "--steps 160" in shown and "--checkpoint-every 100" in shown


@pytest.mark.heavy
def test_generation_is_measured_with_and_without_a_cache(tmp_path, run, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("IDE_TRANSFORMER_CACHE", str(tmp_path))
    run("decode", "--length", "3", "--rounds", "2", "--json", tmp_path / "rows.json")
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["name"] for row in rows] == ["without a cache", "with a cache"]
    assert all(row["same_tokens"] == 1 and row["tokens_per_second"] > 0 for row in rows)


@pytest.mark.heavy
def test_training_on_drawn_meshes_is_timed(tmp_path, run):
    small = ("--width", "8", "--context", "4", "--batch", "2", "--steps", "3")
    meshes = ("--depth", "2", "--meshes", "1", "3")
    run("meshes", *small, *meshes, "--rounds", "2", "--json", tmp_path / "rows.json")
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["name"] for row in rows] == ["2 intervals", "1, 3 drawn"]
    assert rows[0]["time_ratio"] == 1 and rows[1]["milliseconds"] > 0


def test_every_file_is_a_command_with_its_help(run, capsys):
    names = [command.name for command in benchmarks.commands()]
    assert sorted(names) == [
        *("attention", "compile", "decode", "gradient", "host", "march", "meshes", "torch")
    ]
    for name in names:
        with pytest.raises(SystemExit, match="0"):
            run(name, "--help")
        shown = capsys.readouterr().out
        assert f"scripts/benchmark.py {name}" in shown and "--rounds" in shown


@pytest.mark.parametrize("name", ["march", "compile", "decode", "attention"])
def test_too_few_rounds_are_refused(name, run, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(name, "--rounds", "1")
    assert "error: rounds=1" in capsys.readouterr().err


def test_sizes_below_one_are_refused(run, capsys):
    with pytest.raises(SystemExit, match="2"):
        run("march", "--depth", "0")
    assert "argument --depth: 0 is less than 1" in capsys.readouterr().err


def large_equation():
    """Weights as they are drawn make operators so small that an error in one would not show."""
    equation = pre_norm(3, SHAPE)
    control = jax.tree.map(lambda x: 15 * x if x.ndim == 3 else 0.7 * x, equation.control)
    return ide.Equation(control, ide.Free(), equation.domain)


@pytest.mark.parametrize(
    ("name", "recomputing"),
    fast_first(
        1,
        [
            ("lie_trotter(euler)", True),
            ("heun", False),
            ("strang(heun)", True),
            ("lie_trotter(euler)", False),
            ("heun", True),
            ("strang(heun)", False),
        ],
        heavy=2,
    ),
)
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

    @eqx.filter_jit
    def end(layer):
        def fields(w):
            return handwritten.fields(w, SHAPE.heads)

        return handwritten.scanned(layer, fields, weights, u0)

    ends = [end(layer) for _, layer in SCHEMES.values()]
    assert all(largest(ends[i], ends[i - 1]) > 1e-2 for i in range(3))


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(),
    reason="/proc/self/clear_refs, by which Linux lets a process measure its peak, is missing",
)
def test_the_rise_of_resident_memory_is_seen():
    rise = peak_resident_mebibytes(lambda: np.ones(2**23))
    assert rise is not None and 60 < rise < 100
