"""A page on runs whose files are wrong or made to do harm: the command ends with a page or with
one clear error, soon and with little memory, and runs no code of the files."""

import json
import os
import resource
import shutil
import time
from pathlib import Path

import pytest

from tests.misuse.hostile import OBEYED, write_evil
from tests.running import run_here, write_run


pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("unchecked")]

PNG = b"\x89PNG\r\n\x1a\n"
END = {"validation_loss": 1.25, "steps": 3, "nfe": 2, "parameters": 7, "seconds": 1.0}


def link(target):
    return lambda path: path.symlink_to(target)


def content(text):
    text = text.encode() if isinstance(text, str) else text
    return lambda path: path.write_bytes(text)


def line_of(**values):
    return content(json.dumps({"step": 1, "loss": 1.0} | values) + "\n")


def summary_of(**values):
    return content(json.dumps(END | values))


def write_8_gib(path):
    path.write_bytes(PNG)
    os.truncate(path, 2**33)


DEEP, BYTES = content("[" * 100_000), content(bytes(range(128, 250)))
LOG, SUMMARY, CONFIG, FIGURE = "metrics.jsonl", "summary.json", "config.yaml", "plots/a.png"
# A file of a run and what it becomes. A page cannot be made of the run …
REFUSED = [
    *((file, change) for file in (LOG, SUMMARY, CONFIG) for change in (DEEP, BYTES)),
    *((LOG, change) for change in (os.mkfifo, link("/dev/zero"), Path.mkdir)),
    *((LOG, line_of(step=1e308)), (LOG, line_of(loss={"a": 1})), (LOG, line_of(loss=10**400))),
    (SUMMARY, summary_of(seconds={"a": 1})),
    (SUMMARY, summary_of(parameters=10**400)),
    *(("fingerprints.json", DEEP), ("fingerprints.json", content('{"sources": 3}'))),
    (CONFIG, content("version: 3\nsolver: gift.evil:Part")),
    *((FIGURE, write_8_gib), (FIGURE, link("/etc/hostname")), (FIGURE, content("<script>"))),
    *(("plots", link("/etc")), ("sample.txt", link("../SECRET"))),
]
# … or it can, and shows the text as it is.
SHOWN = [
    *((LOG, line_of(**{"solver.<script>": 1.0})), (LOG, line_of(**{OBEYED[0]: 1.0}))),
    (SUMMARY, summary_of(**{"test_<script>": 1})),
    *(("plots/<script>.png", content(PNG)), (f"plots/{OBEYED[0]}.png", content(PNG))),
    ("sample.txt", content("</pre><script>alert(1)</script>")),
    ("sample.txt", content(bytes(range(256)))),
]


@pytest.mark.parametrize(
    ("file", "change", "status"), [*((*x, 2) for x in REFUSED), *((*x, 0) for x in SHOWN)]
)
def test_a_page_shows_nothing_but_the_run(file, change, status, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_evil(tmp_path)
    (tmp_path / "SECRET").write_text("SECRET")
    runs = [write_run(tmp_path / x, solver="rk4", losses=[2.0], **END) for x in ("a", "b")]
    (runs[0] / "plots/loss.png").write_bytes(PNG)
    path = runs[0] / file
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    change(path)
    memory, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    output = run_here(capsys, "report", *runs, "--output", "page.html", expected=status)
    assert time.process_time() - began < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 2**21
    assert not Path("EXECUTED").exists()
    assert all(x.isprintable() or x in "\n\t" for x in output), ascii(output)
    # The lines of an error after its first one are set off: none seems to be another.
    lines = output.splitlines()
    errors = [index for index, line in enumerate(lines) if line.startswith("error: ")]
    assert len(errors) == (status == 2)
    assert all(line.startswith("  ") for index in errors for line in lines[index + 1 :])
    assert len(output) < 10_000
    page = Path("page.html").read_text() if Path("page.html").exists() else ""
    assert not any(x in page for x in ("SECRET", "<script", "\x1b"))
    assert not any(x.name.endswith(".tmp") for x in tmp_path.iterdir())
