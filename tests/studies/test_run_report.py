"""The page on runs: one with smooth weights, one whose data are lost and an adaptive one."""

import html
import re
import shutil

import numpy as np
import pytest
from running import run_here
from training.small_run import TEXT

from ide_transformer import InputError, training
from ide_transformer.studies import runs as pages
from ide_transformer.studies.runs import read_runs


def test_bad_input_is_said_and_nothing_is_overwritten(tmp_path, capsys):
    report = tmp_path / "report.html"
    report.write_text("before")
    logged, silent = tmp_path / "logged", tmp_path / "silent"
    for run in (logged, silent):
        run.mkdir()
        (run / "config.yaml").write_text("version: 1\n")
    (logged / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    there = tmp_path / "nowhere"
    for arguments, message in [
        ([there], f"{there}"),
        ([tmp_path], "is not the folder of a run: it has no config.yaml"),
        ([logged, silent], "has logged no step of training"),
        ([logged, "--output", tmp_path], "it is a folder"),
        ([logged, "--output", there / "a.html"], "there is no folder"),
    ]:
        output = run_here(capsys, "report.py", "--output", report, *arguments, expected=2)
        assert "error: " in output and message in output
    assert report.read_text() == "before"
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "logged", "silent"}


def test_a_summary_that_is_damaged_is_named(tmp_path):
    (tmp_path / "config.yaml").write_text("version: 1\n")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    (tmp_path / "summary.json").write_text("[1]")
    with pytest.raises(InputError, match=r"summary\.json is damaged"):
        read_runs([tmp_path])


@pytest.mark.heavy
def test_a_page_shows_what_runs_logged_and_do_over_depth(tmp_path, capsys, monkeypatch):
    (tmp_path / "text.txt").write_text(TEXT)

    def train(name, steps, **sections):
        tree = {
            "name": name,
            "data": {"name": "text", "path": str(tmp_path / "text.txt")},
            "model": {"width": 8, "heads": 2, "depth": 2, "context": 8, "std": 0.5},
            "optimizer": {"warmup": 1},
            "training": {"steps": steps, "batch_size": 4, "log_every": 1, "sample": 10},
        }
        tree["training"] |= {"evaluate_every": steps // 2, "evaluate_samples": 4}
        config = training.Config.model_validate(tree | sections)
        return training.train(config, runs=tmp_path).path

    smooth = train("smooth", 8, solver={"kind": "nesterov"})
    (smooth / "sample.txt").write_bytes(b"To <be\xff\n")
    lost = shutil.copytree(smooth, tmp_path / "lost")
    (lost / "summary.json").unlink()
    config = (lost / "config.yaml").read_text()
    (lost / "config.yaml").write_text(config.replace("text.txt", "lost.txt"))
    adaptive = train("adaptive", 2, solver={"kind": "tsit5", "rtol": 1e-5, "atol": 1e-5})
    drawn = {}

    def draw_panels(panels, *, y, **options):
        drawn[y] = panels
        return draw(panels, y=y, **options)

    draw = pages.draw_panels
    monkeypatch.setattr(pages, "draw_panels", draw_panels)
    page = tmp_path / "report.html"
    output = run_here(capsys, "report.py", smooth, lost, adaptive, "--output", page)
    assert f"report: {page}" in output and "lost is shown without its model" in output
    text = page.read_text(encoding="utf-8")
    assert re.findall("<h2>(.*?)</h2>", text) == [
        *("Results and cost", "Training", "Norms over depth", "Samples"),
        "Differences of configuration",
    ]
    assert "Not finished: lost." in text and "lost is not drawn: " in text
    assert html.escape("To <be\ufffd") in text and "nesterov" in text
    learned = {f"solver.{name}" for name in ("momentum", "lookahead", "gain")}
    assert drawn.keys() == {"loss", "root mean square", "field evaluations", *learned}
    assert text.count("<img") == len(drawn)
    # A run has the same colour in all figures, also where it has no curve.
    for panels in drawn.values():
        for curves in panels.values():
            assert [curve.label for curve in curves] == ["smooth", "lost", "adaptive"]
    log = training.read_metrics(smooth / "metrics.jsonl")
    losses = [line["loss"] for line in log if "loss" in line]
    assert drawn["loss"]["training"][0].y == losses
    model, _ = training.load_run(smooth)
    inputs = next(training.run_task(training.RunFolder(smooth)).held_out(16)).inputs
    own, other, _ = drawn["root mean square"]["state"]
    assert np.allclose(own.y, training.depth_profile(model, inputs).state)
    assert np.size(other.y) == 0
