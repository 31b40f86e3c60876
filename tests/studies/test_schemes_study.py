"""The two comparisons of schemes, through their script, on real data."""

import inspect
import json

import numpy as np
import pytest
from helpers import ROOT
from running import run_here, run_script

import ide_transformer as ide
from ide_transformer import training
from ide_transformer.studies.schemes import load_comparison


QUICK = ROOT / "configs/quick.yaml"


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
    data: {{validation: 0.002, test: 0.0}}
    solver: {{kind: nesterov, options: {{momentum: 0.5}}}}
  residual(gated_rk2):
    data: {{validation: 0.002, test: 0.0}}
    solver: {{kind: residual, sub_solver: gated_rk2}}
reference: nesterov
"""


@pytest.mark.thorough
@pytest.mark.heavy
def test_schemes_are_trained_with_the_same_budget_and_runs_are_not_made_twice(tmp_path):
    comparison = load_comparison(written(tmp_path, TRAINING))
    report = comparison.compare(tmp_path)
    rows = {row["scheme"]: row for row in report.rows}
    assert set(rows) == set(comparison.schemes)
    assert {row["field_evaluations"] for row in rows.values()} == {60}
    assert rows["residual(gated_rk2)"]["steps"] == 15
    assert all(len(row["seeds"]) == 2 and row["spread"] > 0 for row in rows.values())
    losses = [row["validation_loss"] for row in report.rows]
    assert losses == sorted(losses) and all(2 < loss < 5 for loss in losses)
    folder = tmp_path / "small"
    gated, nesterov = rows["residual(gated_rk2)"], rows["nesterov"]
    apart = np.subtract(gated["seeds"], nesterov["seeds"])
    assert gated["difference"] == pytest.approx(np.mean(apart)) and gated["half_width"] > 0
    assert nesterov["difference"] is None
    # The one evaluation that these runs make is at their end, of all evaluations.
    assert {row["at_equal_evaluations"] for row in rows.values()} == {*losses}
    assert "2 seeds: give three at least. These data have no test part" in report.about
    assert (folder / "differences.png").exists()
    assert (folder / "loss_by_cost.png").exists() and (folder / "report.csv").exists()
    assert json.loads((folder / "report.json").read_text())["rows"] == report.rows
    for row in report.rows:
        assert row["scheme"] in (folder / "report.md").read_text()
    logs = sorted(folder.glob("runs/*/metrics.jsonl"))
    before = [path.stat().st_mtime_ns for path in logs]
    again = comparison.compare(tmp_path)
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


@pytest.mark.thorough
@pytest.mark.heavy
def test_a_budget_in_seconds_and_one_in_steps_are_spent(tmp_path):
    for budget, least, most in (
        ("unit: seconds, amount: 0.5", 11, 2000),
        ("amount: 12", 12, 12),
    ):
        text = TRAINING.replace("unit: field_evaluations, amount: 60", budget)
        one_scheme = text.replace("seeds: [0, 1]", "seeds: [0]").split("  residual")[0]
        named = written(tmp_path, f"name: spent-{least}\n{one_scheme}")
        (row,) = load_comparison(named).compare(tmp_path).rows
        assert least <= row["steps"] <= most


@pytest.mark.heavy
def test_schemes_solve_the_weights_of_a_run(smooth_run, tmp_path, capsys):
    path = written(
        tmp_path,
        f"""
mode: solve
run: {smooth_run}
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
    run_script("compare.py", path, "--runs", tmp_path / "compare")
    folder = tmp_path / "compare/small"
    rows = json.loads((folder / "report.json").read_text())["rows"]
    settings = ["1 steps", "4 steps", "1 steps", "4 steps", "tolerance 0.01"]
    assert [row["setting"] for row in rows] == settings
    assert rows[0]["error"] > 2 * rows[1]["error"] > rows[3]["error"]
    assert [row["field_evaluations"] for row in rows[:4]] == [2, 8, 8, 32]
    assert all(row["mebibytes"] > 0 and row["milliseconds"] > 0 for row in rows)
    assert "Fewest field evaluations" in (folder / "report.md").read_text()
    assert (folder / "work_precision_field_evaluations.png").exists()
    kept = sorted(folder.glob("rows/*.json"))
    times = [file.stat().st_mtime_ns for file in kept]
    assert "report and figures" in run_here(
        capsys, "compare.py", path, "--runs", tmp_path / "compare"
    )
    assert [file.stat().st_mtime_ns for file in kept] == times


class Failing(ide.AbstractOneStep):
    """A scheme that fails in a run alone."""

    def order(self, terms):
        return 1

    def advance(self, field, u):
        if any(frame.function == "train" for frame in inspect.stack()):
            raise RuntimeError("not in a run")
        return u + field(0, u)


FAIR = f"""
mode: train
base: {QUICK}
seeds: [0, 1]
budget: {{amount: 12}}
sweep: {{keys: {{optimizer.learning_rate: [1.0e-3, 4.0e-3]}}, extend: 0}}
schemes:
  ordinary:
    data: {{validation: 0.002, test: 0.004}}
    training: {{evaluate_every: 3, sample: 0}}
  failing:
    data: {{validation: 0.002, test: 0.004}}
    solver: {{kind: "{__name__}:Failing"}}
reference: ordinary
"""


@pytest.mark.heavy
def test_what_is_tuned_on_validation_data_is_reported_on_test_data(tmp_path, monkeypatch):
    monkeypatch.setattr(training.run, "plot_run", lambda *_: None)
    comparison = load_comparison(written(tmp_path, FAIR))
    report = comparison.compare(tmp_path)
    folder = tmp_path / "small"
    row, failed = report.rows
    swept = {
        rate: json.loads((folder / f"runs/ordinary-{rate}-seed0/summary.json").read_text())
        for rate in (0.001, 0.004)
    }
    best = min(swept, key=lambda rate: swept[rate]["validation_loss"])
    assert row["scheme"] == "ordinary" and row["optimizer.learning_rate"] == best
    assert row["seeds"][0] == swept[best]["test_loss"] != swept[best]["validation_loss"]
    assert row["test_loss"] == pytest.approx(np.mean(row["seeds"]))
    assert failed == {**failed, "scheme": "failing", "failure": "RuntimeError: not in a run"}
    assert failed["test_loss"] is None and failed["difference"] is None
    assert "Failed, so without figures: failing." in report.about
    assert comparison.compare(tmp_path) == report
