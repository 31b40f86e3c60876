"""The study of maps between functions, through its script."""

import json

import pytest
from running import run_here

import operators
from ide_transformer import training
from operator_learning import ours, settings


TESTS = settings.TESTS["points"]["burgers"]
LINE = settings.Cell("ours", "burgers", {"points": "random", "weights": "quadrature"})


@pytest.fixture
def command(monkeypatch, tmp_path):
    monkeypatch.setitem(settings.CELLS, "points", [LINE])
    where = ("--json", tmp_path / "rows.json", "--runs", tmp_path / "runs")
    return ("operators.py", "points", "--models", "ours", *where)


def test_the_best_rate_gets_the_other_seeds_and_what_is_done_stays(
    command, monkeypatch, tmp_path, capsys
):
    done, rows = [], [{"validation_loss": x} for x in (float("nan"), 0.5, 0.1)]
    # A rate at which a run diverges is not the best.
    assert min(rows, key=operators._loss) is rows[2]

    def train_and_test(cell, rate, seed, steps, tests, runs):
        assert (cell, steps, tests) == (LINE, 7, TESTS)
        done.append((rate, seed))
        error = abs(rate - 0.03) + seed
        figures = dict.fromkeys(TESTS, 10 * error)
        return {"validation_loss": error, "parameters": 5, "seconds": 2.0, **figures}

    monkeypatch.setattr(ours, "train_and_test", train_and_test)
    options = ("--steps", "7", "--rates", "0.01,0.02,0.1")
    run_here(capsys, *command, *options, "--seeds", "1")
    assert done == [(0.01, 0), (0.02, 0), (0.1, 0)]
    table = run_here(capsys, *command, *options, "--seeds", "3")
    assert done[3:] == [(0.02, 1), (0.02, 2)]
    assert "1.0100 ± 1.0000" in table and "10.1000 ± 10.0000" in table
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert len(rows) == 5 and "Code: " in table
    # A row of an earlier release says neither what it was made of nor by which code.
    for name in ("made_of", "code"):
        del rows[0][name]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    assert "not recorded: " in run_here(capsys, *command, *options, "--seeds", "1")
    monkeypatch.setattr(ours, "warmup", lambda steps: 2)
    said = run_here(capsys, *command, *options, "--seeds", "1", expected=2)
    assert "was made with other settings or on other data" in said and len(done) == 5


@pytest.mark.heavy
def test_a_run_is_tested_on_points_of_each_kind(command, tmp_path, capsys):
    """Also where it was stopped before its first checkpoint."""
    study = (*command, "--steps", "5", "--rates", "1e-3", "--seeds", "1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.run, "Loop", None)
        with pytest.raises(TypeError):
            run_here(capsys, *study)
    run_here(capsys, *study)
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    errors = {round(row[name], 6) for name in TESTS}
    assert len(errors) == len(TESTS) and 0.1 < min(errors) < max(errors) < 10
    (run,) = (tmp_path / "runs").iterdir()
    summary = json.loads((run / "summary.json").read_text())
    assert row["validation_loss"] == summary["validation_loss"]
