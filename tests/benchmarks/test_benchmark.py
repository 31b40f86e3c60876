"""The benchmarks at tiny sizes: what they write, and that they compare equal things."""

import contextlib
import itertools
import json
import os
import runpy
import sys
import threading
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import SCRIPTS, built, drawn, fast_first, largest
from jax.experimental.compilation_cache import compilation_cache

import benchmarks
import ide_transformer as ide
from benchmarks.host import _Gate
from benchmarks.march import SCHEMES, gradient_by_hand, plain_weights
from benchmarks.shared.problem import Shape, gradient_of_solve, pre_norm
from benchmarks.shared.timing import Rounds, alternate, measured, timed_compile
from benchmarks.with_torch.processes import peak_resident_mebibytes
from ide_transformer.training.stopping import Stopped


SHAPE = Shape(batch=2, context=5, width=8, heads=2)
WIDTHS = "--batch 2 --width 8 --heads 2"
SIZES = f"{WIDTHS} --context 5 --depth 3"
TIMING = {"milliseconds", "spread", "time_ratio", "ratio_spread"}
MEASUREMENT = TIMING | {"mebibytes", "memory_ratio", "compile_seconds"}
NORMALIZED = MEASUREMENT | {"normalization", "depth"}
MESHES = "--width 8 --context 4 --batch 2 --steps 3 --depth 2 --meshes 1 3"


@pytest.fixture
def run(monkeypatch):
    """Runs the script in this process, which has what it imports already."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["benchmark.py", *map(str, arguments)])
        runpy.run_path(str(SCRIPTS / "benchmark.py"), run_name="__main__")

    return run


@pytest.mark.parametrize(
    ("command", "names", "columns"),
    fast_first(
        1,
        [
            (f"attention {WIDTHS} --tokens 5", 3, MEASUREMENT | {"tokens"}),
            (f"host {SIZES} --steps 4 --checkpoint-every 4", 2, TIMING | {"depth"}),
            ("decode --length 3", 2, TIMING | {"tokens_per_second", "same_tokens"}),
            (f"meshes {MESHES}", 2, TIMING),
            (f"gradient {SIZES} --normalization post-norm", 7, NORMALIZED),
            (f"march {SIZES} --scheme heun", 5, MEASUREMENT | {"scheme", "depth"}),
            (f"compile {SIZES}", 7, {"compile_seconds", "compile_spread", "depth"}),
        ],
        heavy=2,
    ),
    ids=lambda value: value.split()[0] if isinstance(value, str) else None,
)
def test_a_command_writes_its_rows_and_its_figure(
    command, names, columns, tmp_path, run, capsys, monkeypatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("IDE_TRANSFORMER_CACHE", str(tmp_path))
    table, figure = tmp_path / "rows.json", tmp_path / "rows.png"
    run(*command.split(), "--rounds", 2, "--json", table, "--figure", figure)
    shown = capsys.readouterr().out
    written = json.loads(table.read_text())
    rows, machine = written["rows"], written["machine"]
    assert machine["jax"] == jax.__version__ and 0 < machine["cores"] <= os.cpu_count()
    assert f"processor: {machine['processor']}, cores: " in shown and machine["processor"]
    assert len({row["name"] for row in rows}) == len(rows) == names
    assert all(set(row) >= columns | {"name"} for row in rows)
    assert all(row.get("depth", 3) == 3 and row.get("tokens", 5) == 5 for row in rows)
    assert rows[0].get("time_ratio", 1) == 1
    for column in ("milliseconds", "compile_seconds", "same_tokens", "tokens_per_second"):
        assert all(row.get(column, 1) > 0 for row in rows)
    assert all(row["name"].split(",")[0] in shown for row in rows)
    assert figure.read_bytes().startswith(b"\x89PNG")


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


def test_every_command_has_its_help_and_refuses_sizes(run, capsys):
    names = [command.name for command in benchmarks.commands()]
    every = "attention compile decode emulators gradient host march meshes torch"
    assert sorted(names) == every.split()
    for name in names:
        with pytest.raises(SystemExit, match="0"):
            run(name, "--help")
        shown = capsys.readouterr().out
        assert f"scripts/benchmark.py {name}" in shown and "--rounds" in shown
        with pytest.raises(SystemExit, match="2"):
            run(name, "--rounds", "1")
        assert "error: rounds=1" in capsys.readouterr().err
    for command, said in {
        "march --depth 0": "argument --depth: 0 is less than 1",
        "host --steps 100 --checkpoint-every 80": "--steps 160, or write",
    }.items():
        with pytest.raises(SystemExit, match="2"):
            run(*command.split())
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "recomputing"),
    fast_first(
        1, [("lie_trotter(euler)", True), ("strang(heun)", True), ("heun", False)], heavy=1
    ),
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


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(),
    reason="/proc/self/clear_refs, by which Linux lets a process measure its peak, is missing",
)
def test_the_rise_of_resident_memory_is_seen():
    rise = peak_resident_mebibytes(lambda: np.ones(2**23))
    assert rise is not None and 60 < rise < 100


def test_measure_sees_what_costs_more():
    x = np.ones((400, 400))

    def once(x):
        return x @ x

    def many(x):
        for _ in range(20):
            x = 0.1 * (x @ x)
        return x

    rounds = []
    programs = {"once": (once, (x,)), "many": (many, (x,))}
    least, most = measured(programs, Rounds(3, rounds.append))
    assert rounds == [0, 1, 2, 3]
    assert least["time_ratio"] == 1 and most["milliseconds"] > least["milliseconds"] > 0
    assert most["mebibytes"] >= 400 * 400 * 8 / 2**20 > least["mebibytes"]


def test_turns_are_taken_once_a_round_and_the_first_round_does_not_count():
    seconds = {"a": iter([9.0, 1.0, 2.0, 3.0]), "b": iter([0.0, 4.0, 4.0, 6.0])}
    turns = {name: lambda given=given: next(given) for name, given in seconds.items()}
    a, b = alternate(turns, Rounds(3))
    assert (a["milliseconds"], b["milliseconds"]) == (2000, 4000)
    assert (a["spread"], b["time_ratio"]) == (1.0, 2.0)


def test_what_is_timed_is_compiled_and_not_read_from_the_disk(tmp_path):
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    compilation_cache.reset_cache()
    try:
        compiled, seconds = timed_compile(lambda x: 3 * x + 1, (np.ones(3),))
        assert (compiled(np.ones(3)) == 4).all() and seconds > 0
        assert not list(tmp_path.glob("jit_*lambda*"))
        jax.clear_caches()
        jax.jit(lambda x: 3 * x + 1).lower(np.ones(3)).compile()
        assert list(tmp_path.glob("jit_*lambda*"))
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
        compilation_cache.reset_cache()
