"""The evaluation of runs whose tokens stop before the end of a solve."""

import json

import equinox as eqx
import numpy as np
import pytest
from running import run_here

import ide_transformer as ide
from ide_transformer import tasks, training


TEXT = "the sea is wide and the night is long and the wind is cold. " * 40


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exits")
    (folder / "text.txt").write_text(TEXT)
    settings = training.Config.model_validate(
        {
            "name": "exits",
            "data": {"name": "text", "path": folder / "text.txt"},
            "model": {"width": 16, "heads": 2, "depth": 4, "context": 8},
            "control": {"kind": "chebyshev", "options": {"terms": 3}},
            "optimizer": {"warmup": 1},
            "training": {"steps": 2, "batch_size": 4, "sample": 0},
        }
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.run, "plot_run", lambda *_: None)
        return training.train(settings, runs=folder / "runs").path


@pytest.mark.heavy
def test_rows_begin_with_the_full_solve_and_the_rest_is_measured_against_it(run):
    loaded = training.load_model(run)
    exit, six = ide.EstimatedExit(1.0), ide.Mesh(intervals=6)
    rows = training.evaluate_exits(loaded, exit, [0.0, 1e6], [six], samples=32)
    assert [row["tolerance"] for row in rows] == [None, 0.0, 1e6]
    (alone,) = training.evaluate_on_meshes(loaded, [six], samples=32)
    for row in rows[:2]:
        assert row["loss"] == pytest.approx(alone["loss"], rel=1e-5)
        assert (row["evaluations"], row["saved"], row["steps"]) == (6, 0, 6)
    assert rows[2]["evaluations"] == 2
    assert rows[2]["saved"] == pytest.approx(2 / 3)
    # Between two batches of different sizes the mean is that over samples.
    model = loaded.model.on(six).with_exit(ide.EstimatedExit(0.0001))
    (row,) = training.evaluate_exits(loaded, exit, [0.0001], [six], samples=24)[1:]
    task = training.evaluation_task(loaded)
    solve = eqx.filter_jit(lambda model, inputs: model.solve(inputs).stats["field_evaluations"])
    counts = [np.asarray(solve(model, batch.inputs)) for batch in task.held_out(16, 24)]
    assert row["evaluations"] == pytest.approx(np.concatenate(counts).mean(), rel=1e-6)


def test_the_cheapest_exit_within_a_margin():
    def row(steps, tolerance, evaluations, loss):
        return dict(steps=steps, tolerance=tolerance, evaluations=evaluations, loss=loss)

    rows = [
        row(8, None, 8.0, 1.0),
        row(8, 0.1, 7.0, 1.004),
        row(8, 0.5, 6.0, 1.006),
        row(4, None, 4.0, 1.0),
        row(4, 0.1, 3.0, 1.1),
    ]
    found = training.cheapest_exits(rows, [0.005, 0.02])
    assert [best["evaluations"] for best in found] == [7, 4, 6, 4]


class Own(tasks.AbstractLoss):
    """A loss of a user."""

    label = "own"

    def measure(self, outputs, targets):
        raise NotImplementedError


def test_an_exit_without_an_estimate_is_refused():
    with pytest.raises(ide.InputError, match=r"--exit: .*Own.*define `difference`"):
        training.estimated_exit(Own())
    exit = training.estimated_exit(tasks.RelativeError(), stops="sample")
    assert exit.difference is ide.relative_difference


@pytest.mark.heavy
def test_a_run_is_evaluated_with_exits(run, tmp_path, capsys):
    files = ("--json", tmp_path / "rows.json", "--figure", tmp_path / "figure.png")
    exits = ("--exit", "0.1,0.01")
    some = ("--mesh", "intervals=2,4", "--samples", 8)
    shown = run_here(capsys, "evaluate.py", run, *exits, *some, *files, "--exit-for", "sample")
    assert "fewest evaluations" in shown
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert len(rows) == 2 * 3
    assert (tmp_path / "figure.png").stat().st_size > 1000
    assert "-1" in run_here(capsys, "evaluate.py", run, "--exit=-1", expected=2)
    run_here(capsys, "evaluate.py", run, "--exit", "none", expected=2)
    nesterov = ("solver.kind=nesterov", "--exit", "0.1", "--samples", 8)
    said = run_here(capsys, "evaluate.py", run, *nesterov, expected=2)
    assert "Nesterov uses earlier steps" in said
