"""The page on runs."""

import html
import json
import re

import yaml
from matplotlib.figure import Figure
from running import run_here

from ide_transformer.figures import save_figure
from ide_transformer.studies import runs as pages


def test_bad_input_is_said_and_nothing_is_overwritten(tmp_path, capsys):
    report = tmp_path / "report.html"
    report.write_text("before")
    logged, silent, damaged = (tmp_path / name for name in ("logged", "silent", "damaged"))
    for run in (logged, silent, damaged):
        run.mkdir()
        (run / "config.yaml").write_text("version: 1\n")
        (run / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    (silent / "metrics.jsonl").unlink()
    (damaged / "summary.json").write_text("[1]")
    there = tmp_path / "nowhere"
    for arguments, message in [
        ([there], f"{there}"),
        ([tmp_path], "is not the folder of a run: it has no config.yaml"),
        ([logged, silent], "has logged no step of training"),
        ([logged, damaged], "summary.json is damaged"),
        ([logged, "--output", tmp_path], "it is a folder"),
        ([logged, "--output", there / "a.html"], "there is no folder"),
    ]:
        output = run_here(capsys, "report.py", "--output", report, *arguments, expected=2)
        assert "error: " in output and message in output
    assert report.read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 4


def write_run(folder, *, solver, losses, **summary):
    """A run as if it had been made."""
    (folder / "plots").mkdir(parents=True)
    config = {"version": 1, "name": folder.name, "solver": solver}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "fingerprints.json").write_text('{"run": "0", "sources": ["0.1 (abc)"]}')
    lines = [
        {"step": n, "loss": x, "solver.momentum": 0.5, "field_evaluations": 2}
        for n, x in enumerate(losses, 1)
    ]
    lines += [{"step": len(losses), "validation_loss": losses[-1]}]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    if summary:
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_a_page_shows_what_runs_logged_drew_and_wrote(tmp_path, capsys, monkeypatch):
    end = {"validation_loss": 1.25, "steps": 3, "nfe": 2, "parameters": 7, "seconds": 1.0}
    smooth = write_run(tmp_path / "smooth", solver="nesterov", losses=[3.0, 2.0, 1.5], **end)
    going = write_run(tmp_path / "going", solver="rk4", losses=[3.5, 2.5])
    adaptive = {"kind": "tsit5", "rtol": 1e-5, "atol": 1e-5}
    last = write_run(tmp_path / "last", solver=adaptive, losses=[2.75], **end)
    (smooth / "sample.txt").write_bytes(b"To <be\xff\n")
    for name in ("loss", "state_norm"):
        save_figure(Figure(), smooth / f"plots/{name}.png")
    drawn = {}

    def draw_panels(panels, *, y, **options):
        drawn[y] = panels
        return draw(panels, y=y, **options)

    draw = pages.draw_panels
    monkeypatch.setattr(pages, "draw_panels", draw_panels)
    page = tmp_path / "report.html"
    assert f"report: {page}" in run_here(
        capsys, "report.py", smooth, going, last, "--output", page
    )
    text = page.read_text(encoding="utf-8")
    assert re.findall("<h2>(.*?)</h2>", text) == [
        *("Results and cost", "Training", "Drawn by each at its end", "Samples"),
        "Differences of configuration",
    ]
    assert "Not finished: going." in text and html.escape("To <be\ufffd") in text
    assert "<td>1.25</td>" in text and "<td>2.5</td>" in text and "nesterov" in text
    assert text.count("data:image/png") == 1 and 'alt="smooth, state norm"' in text
    assert drawn.keys() == {"loss", "solver.momentum", "field evaluations"}
    assert text.count("data:image/svg+xml") == len(drawn)
    # A run has the same colour in all figures, also where it has no curve.
    for panels in drawn.values():
        for curves in panels.values():
            assert [curve.label for curve in curves] == ["smooth", "going", "last"]
    assert [curve.y for curve in drawn["loss"]["training"]] == [[3, 2, 1.5], [3.5, 2.5], [2.75]]
    assert [curve.y for curve in drawn["loss"]["validation"]] == [[1.25], [2.5], [2.75, 1.25]]
