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
    exits = [ide.EstimatedExit(1.0), ide.SecondDifferenceExit(1.0)]
    rows = training.evaluate_exits(loaded, exits, [0.0, 1e6], steps=[6], samples=32)
    assert [row["exit"] for row in rows] == [
        "none", *(["EstimatedExit"] * 2), *(["SecondDifferenceExit"] * 2)
    ]  # fmt: skip
    (alone,) = training.evaluate_at_depths(loaded, [6], samples=32)
    for row in rows[0], rows[1], rows[3]:
        assert row["loss"] == pytest.approx(alone["loss"], rel=1e-5)
        assert (row["evaluations"], row["saved"], row["steps"]) == (6, 0, 6)
    assert [row["evaluations"] for row in rows[2::2]] == [2, 3]
    assert [row["saved"] for row in rows[2::2]] == pytest.approx([2 / 3, 1 / 2])
    # Between two batches of different sizes the mean is that over samples.
    model = loaded.model.at_depth(6).with_exit(ide.EstimatedExit(0.0001))
    (row,) = training.evaluate_exits(
        loaded, [ide.EstimatedExit(1.0)], [0.0001], steps=[6], samples=24
    )[1:]
    task = training.evaluation_task(loaded)
    solve = eqx.filter_jit(lambda model, inputs: model.solve(inputs).stats["field_evaluations"])
    counts = [np.asarray(solve(model, batch.inputs)) for batch in task.held_out(16, 24)]
    assert row["evaluations"] == pytest.approx(np.concatenate(counts).mean(), rel=1e-6)


def test_the_cheapest_exit_within_a_margin():
    def row(exit, evaluations, loss):
        return {"exit": exit, "steps": 8, "evaluations": evaluations, "loss": loss}

    rows = [
        row("none", 8.0, 1.0),
        row("a", 7.0, 1.004),
        row("a", 6.0, 1.006),
        row("b", 5.0, 1.1),
    ]
    (first, second), (wider, _) = (
        training.cheapest_exits(rows, [margin]) for margin in (0.005, 0.02)
    )
    assert (first["evaluations"], wider["evaluations"]) == (7, 6)
    assert (second["exit"], second["evaluations"], second["loss"]) == ("b", 8, 1)


class Own(tasks.AbstractLoss):
    """A loss of a user."""

    label = "own"

    def measure(self, outputs, targets):
        raise NotImplementedError


def test_an_exit_without_an_estimate_is_refused():
    with pytest.raises(ide.InputError, match=r"--exit estimate: .*Own.*define `difference`"):
        training.named_exits(["estimate"], Own())
    with pytest.raises(ide.InputError, match=r"--exit confidence: .*no confidence"):
        training.named_exits(["confidence"], tasks.RelativeError())
    with pytest.raises(ide.InputError, match=r"--exit estimat: .*Did you mean estimate"):
        training.named_exits(["estimat"], tasks.CrossEntropy())
    (exit,) = training.named_exits(["estimate"], tasks.RelativeError(), stops="sample")
    assert exit.difference is ide.relative_difference
    (exit,) = training.named_exits(["second_difference"], Own())
    assert isinstance(exit, ide.SecondDifferenceExit)


@pytest.mark.heavy
def test_a_run_is_evaluated_with_exits(run, tmp_path, capsys):
    files = ("--json", tmp_path / "rows.json", "--figure", tmp_path / "figure.png")
    exits = ("--exit", "estimate,confidence", "--tolerances", "0.1,0.01")
    some = ("--steps", "2,4", "--samples", 8)
    shown = run_here(capsys, "evaluate.py", run, *exits, *some, *files, "--exit-for", "sample")
    assert "fewest evaluations" in shown
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert len(rows) == 2 * 5
    assert (tmp_path / "figure.png").stat().st_size > 1000
    wrong = run_here(capsys, "evaluate.py", run, "--exit", "estimate", "--tolerances", "-1",
                     expected=2)  # fmt: skip
    assert "-1" in wrong
    run_here(capsys, "evaluate.py", run, "--exit", "none", expected=2)
    nesterov = ("solver.kind=nesterov", "--exit", "estimate", "--samples", 8)
    assert "carries" in run_here(capsys, "evaluate.py", run, *nesterov, expected=2)
