"""A run whose outputs depend on later tokens is refused, before and after it is trained."""

import shutil
import sys
from pathlib import Path

import pytest
import yaml
from running import run_here
from training.tiny_runs import base

from ide_transformer import training
from ide_transformer.training import build


@pytest.fixture
def leaking(tmp_path, monkeypatch):
    """A configuration with an operator that reads the next token, in the current folder."""
    shutil.copy(Path(__file__).parent / "mine.py", tmp_path)
    tree = base(tmp_path, steps=3)
    tree["model"]["operators"] = ["attention", "mine:Ahead"]
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(tree))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    monkeypatch.setattr(training.run, "plot_run", lambda *_: None)
    yield tmp_path
    sys.modules.pop("mine", None)


def test_a_leak_is_refused_by_every_script(leaking, capsys, monkeypatch):
    said = "operator 1, Ahead, sees later tokens"
    assert said in run_here(capsys, "train.py", "small.yaml", expected=2)
    assert not (leaking / "runs").exists()

    monkeypatch.setattr(build, "check_causal", lambda *_: None)
    run_here(capsys, "train.py", "small.yaml")
    monkeypatch.undo()
    monkeypatch.chdir(leaking)
    for command in (["sample.py"], ["evaluate.py", "--samples", 4]):
        assert said in run_here(capsys, command[0], "runs/small", *command[1:], expected=2)
