"""The page on runs."""

import html
import json

import yaml
from matplotlib.figure import Figure
from running import run_here

from ide_transformer.figures import save_figure


def write_run(folder, *, solver, losses, **summary):
    """A run as if it had been made."""
    (folder / "plots").mkdir(parents=True)
    config = {"version": 1, "name": folder.name, "solver": solver}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "fingerprints.json").write_text('{"run": "0", "sources": ["0.1 (abc)"]}')
    lines = [{"step": n, "loss": x, "field_evaluations": 2} for n, x in enumerate(losses, 1)]
    lines += [{"step": len(losses), "validation_loss": losses[-1]}]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    if summary:
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_a_page_shows_what_runs_logged_drew_and_wrote(tmp_path, capsys):
    end = {"validation_loss": 1.25, "steps": 3, "nfe": 2, "parameters": 7, "seconds": 1.0}
    smooth = write_run(tmp_path / "smooth", solver="nesterov", losses=[3.0, 2.0, 1.5], **end)
    going = write_run(tmp_path / "going", solver="rk4", losses=[3.5, 2.5])
    (smooth / "sample.txt").write_bytes(b"To <be\xff\n")
    save_figure(Figure(), smooth / "plots/state_norm.png")
    page = tmp_path / "report.html"
    run_here(capsys, "report.py", smooth, going, "--output", page)
    text = page.read_text(encoding="utf-8")
    assert "Not finished: going." in text and html.escape("To <be\ufffd") in text
    assert "<td>1.25</td>" in text and "<td>2.5</td>" in text and "nesterov" in text
    assert text.count("data:image/png") == 1 and 'alt="smooth, state norm"' in text
    assert text.count("data:image/svg+xml") == 1
