"""The study of maps between functions, through its script."""

import json

import pytest
from running import run_here

from ide_transformer import training
from operator_learning import settings


TESTS = settings.TESTS["points"]["burgers"]
LINE = settings.Cell("ours", "burgers", {"points": "random", "weights": "quadrature"})


@pytest.mark.heavy
def test_a_run_is_tested_on_points_of_each_kind(tmp_path, capsys, monkeypatch):
    """Also where it was stopped before its first checkpoint."""
    monkeypatch.setitem(settings.CELLS, "points", [LINE])
    where = ("--json", tmp_path / "rows.json", "--runs", tmp_path / "runs")
    command = ("operators.py", "points", "--models", "ours", *where)
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
