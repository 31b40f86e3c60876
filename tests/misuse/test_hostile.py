"""Commands on files that are wrong and on values that were made to do harm: each ends with a
result or with one clear error, soon and with little memory, and runs no code of the files."""

import contextlib
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest
import yaml

from tests.misuse import hostile
from tests.running import run_here, write_run
from tests.training import stub


pytestmark = [pytest.mark.heavy, pytest.mark.usefixtures("unchecked")]
CONFIGS = {**dict(hostile.texts_of_configs()), **hostile.CONFIGS}


class Late(BaseException):
    """Nothing that a reader of files takes for a fault of theirs."""


@contextlib.contextmanager
def at_most(seconds):
    """Ends what waits for ever, such as for a pipe."""

    def late(*_):
        raise Late(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def ends(tmp_path, monkeypatch, capsys):
    """A command that has to be refused, or may be `allowed`; its output."""
    monkeypatch.chdir(tmp_path)
    hostile.write_evil(tmp_path)

    def check(script, *arguments, allowed=False):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.process_time()
        with at_most(60):
            said = run_here(capsys, script, *arguments, expected=(0, 2) if allowed else 2)
        assert time.process_time() - began < 5
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most < 2**21
        assert not Path("EXECUTED").exists()
        assert all(x.isprintable() or x in "\n\t" for x in said), ascii(said)
        # The lines of an error after its first one are set off: none seems to be another.
        lines = said.splitlines()
        begins = [n for n, line in enumerate(lines) if line.startswith("error: ")]
        assert all(line.startswith("  ") for n in begins for line in lines[n + 1 :]), said
        assert "Traceback" not in said and len(said) < 10_000
        return said

    return check


@pytest.fixture
def untrained():
    with stub.untrained():
        yield


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_is_refused(name, ends, untrained, tmp_path):
    given, file = CONFIGS[name], tmp_path / "own.yaml"
    if isinstance(given, tuple):
        (*sections, key), text = given[0].split("."), given[1]
        tree = section = stub.tree(version=3)
        for part in sections:
            section = section.setdefault(part, {})
        section[key] = text
        given = yaml.safe_dump(tree)
        # That of a run of somebody else, whose code is not trusted.
        file = tmp_path / "runs/gift/config.yaml"
        (file.parent / "checkpoints").mkdir(parents=True)
    hostile.content(given)(file)
    ends("train", file)


@pytest.mark.parametrize("name", hostile.REPORTS)
def test_a_page_shows_nothing_but_the_run(name, ends, tmp_path):
    file, change, allowed = hostile.REPORTS[name]
    (tmp_path / "SECRET").write_text("SECRET")
    runs = [
        write_run(tmp_path / x, solver="rk4", losses=[2.0], **hostile.END) for x in ("a", "b")
    ]
    (runs[0] / "plots/loss.png").write_bytes(hostile.PNG)
    path = runs[0] / file
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    change(path)
    ends("report", *runs, "--output", "page.html", allowed=allowed)
    page = Path("page.html").read_text() if Path("page.html").exists() else ""
    assert not any(x in page for x in ("SECRET", "<script", "\x1b"))
    assert not any(x.name.endswith(".tmp") for x in tmp_path.iterdir())


def test_what_is_right_is_taken(ends, untrained, tmp_path):
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(stub.tree()))
    made = write_run(tmp_path / "a", solver="rk4", losses=[2.0], **hostile.END)
    said = ends("train", "own.yaml", allowed=True) + ends("report", made, allowed=True)
    assert "error:" not in said
