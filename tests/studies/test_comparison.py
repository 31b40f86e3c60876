"""The two comparisons and the table of orders, through their scripts, on real data."""

import json
import subprocess
import sys

import pytest
from helpers import ROOT

import ide_transformer as ide
from ide_transformer.studies.depth.speeches import halves_of_speeches
from ide_transformer.studies.schemes import compare, load_compare_config


QUICK = ROOT / "configs/quick.yaml"


def run(script, *arguments):
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def written(tmp_path, text):
    path = tmp_path / "small.yaml"
    path.write_text(text)
    return path


TRAINING = f"""
mode: train
base: {QUICK}
seeds: [0, 1]
budget: {{unit: field_evaluations, amount: 60}}
schemes:
  nesterov:
    solver: {{kind: nesterov, options: {{momentum: 0.5}}}}
  residual(gated_rk2):
    solver: {{kind: residual, sub_solver: gated_rk2}}
"""


@pytest.mark.heavy
def test_schemes_are_trained_with_the_same_budget_and_runs_are_not_made_twice(tmp_path):
    config = load_compare_config(written(tmp_path, TRAINING))
    report = compare(config, tmp_path)
    rows = {row["scheme"]: row for row in report.rows}
    assert set(rows) == set(config.schemes)
    assert {row["field_evaluations"] for row in rows.values()} == {60}
    assert rows["residual(gated_rk2)"]["steps"] == 15
    assert all(len(row["seeds"]) == 2 and row["spread"] > 0 for row in rows.values())
    losses = [row["validation_loss"] for row in report.rows]
    assert losses == sorted(losses) and all(2 < loss < 5 for loss in losses)
    folder = tmp_path / "small"
    assert (folder / "loss_by_cost.png").exists() and (folder / "report.csv").exists()
    assert json.loads((folder / "report.json").read_text())["rows"] == report.rows
    for row in report.rows:
        assert row["scheme"] in (folder / "report.md").read_text()
    logs = sorted(folder.glob("runs/*/metrics.jsonl"))
    before = [path.stat().st_mtime_ns for path in logs]
    again = compare(config, tmp_path)
    assert again == report and [path.stat().st_mtime_ns for path in logs] == before
    # Learned coefficients are logged, and they learn.
    for run_name, names in (
        ("nesterov-seed0", ("momentum", "lookahead", "gain")),
        ("residual_gated_rk2-seed0", ("solver.weight", "solver.bias")),
    ):
        lines = (folder / f"runs/{run_name}/metrics.jsonl").read_text().splitlines()
        values = [line for line in map(json.loads, lines) if "loss" in line]
        for name in names:
            assert values[0][f"solver.{name}"] != values[-1][f"solver.{name}"]


@pytest.mark.heavy
def test_schemes_solve_the_weights_of_a_run(tmp_path):
    runs = tmp_path / "runs"
    done = run(
        "train.py",
        *(QUICK, "--runs", runs, "name=smooth", "control.kind=chebyshev", "training.steps=20"),
    )
    assert done.returncode == 0, done.stderr
    path = written(
        tmp_path,
        f"""
mode: solve
run: {runs}/smooth
samples: 4
rounds: 2
reference: {{kind: dopri8, steps_per_interval: 8}}
tolerance: 1.0e-2
schemes:
  lie_trotter(euler): {{solver: {{kind: lie_trotter, sub_solver: euler}}, steps: [1, 4]}}
  rk4: {{solver: {{kind: rk4}}, steps: [1, 4]}}
  adaptive: {{solver: {{kind: tsit5}}, tolerances: [1.0e-2]}}
""",
    )
    done = run("compare.py", path, "--runs", tmp_path / "compare")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "compare/small"
    rows = json.loads((folder / "report.json").read_text())["rows"]
    assert [row["setting"] for row in rows[:2]] == ["1 steps", "4 steps"]
    assert rows[0]["error"] > 2 * rows[1]["error"] > rows[3]["error"]
    assert [row["field_evaluations"] for row in rows[:4]] == [2, 8, 8, 32]
    assert all(row["mebibytes"] > 0 and row["milliseconds"] > 0 for row in rows)
    assert "Fewest field evaluations" in (folder / "report.md").read_text()
    assert (folder / "work_precision_field_evaluations.png").exists()
    kept = sorted(folder.glob("rows/*.json"))
    times = [file.stat().st_mtime_ns for file in kept]
    assert run("compare.py", path, "--runs", tmp_path / "compare").returncode == 0
    assert [file.stat().st_mtime_ns for file in kept] == times


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mode: both", "mode='both'; it must be train or solve"),
        ("mode: train\nseeds: [0]", "budget.*Field required"),
        (
            TRAINING.replace("kind: nesterov", "kind: nestrov"),
            r"solver.kind=nestrov: unknown. Did you mean nesterov\?",
        ),
        (
            TRAINING.replace("momentum: 0.5", "momentum: 1.5"),
            r"solver: momentum=1.5: it must lie in \[0, 1\)",
        ),
        (
            TRAINING.replace("momentum", "momentun"),
            r"solver.options.momentun: unknown option. Did you mean momentum\?",
        ),
        (TRAINING.replace("unit: field_evaluations", "unit: hours"), "budget.unit='hours'"),
        (
            "mode: solve\nrun: nowhere\nschemes: {x: {solver: {kind: euler}, steps: [1]}}",
            "nowhere is not the folder of a run",
        ),
    ],
)
def test_comparisons_that_cannot_be(tmp_path, text, message):
    with pytest.raises(ide.InputError, match=message):
        compare(load_compare_config(written(tmp_path, text)), tmp_path)
    assert not (tmp_path / "small").exists()


def test_the_table_of_orders(tmp_path):
    table, figure = tmp_path / "orders.json", tmp_path / "orders.png"
    done = run(
        "convergence.py",
        *("--scheme", "strang(heun)", "--scheme", "rk4", "--control", "chebyshev"),
        *("--constraint", "free", "--json", table, "--figure", figure),
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(table.read_text())
    assert [(row["scheme"], row["expected_order"]) for row in rows] == [
        ("strang(heun)", 2),
        ("rk4", 4),
    ]
    assert all(abs(row["observed_order"] - row["expected_order"]) < 0.15 for row in rows)
    assert rows[0]["splitting_error"] > 0 and rows[1]["splitting_error"] is None
    assert figure.exists() and "strang(heun)" in done.stdout
    wrong = run("convergence.py", "--scheme", "rk5")
    assert wrong.returncode == 2 and "--scheme rk5: unknown. Known: euler" in wrong.stderr


def test_halves_of_speeches_hold_their_words():
    lines = [f"Words of line {n}, and so on to the end." for n in range(9)]
    speech = "\n".join(["## Ham.", *lines])
    text = f"# Act\n\n{speech}\n_Exit_\n\n## Oph.\nToo short."
    ((first, second),) = halves_of_speeches(text)
    words = " ".join(lines).split()
    assert f"{first} {second}".split() == words
    assert abs(len(first.split()) - len(second.split())) <= 1
