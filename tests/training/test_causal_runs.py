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


SAID = "operator 1, Ahead, sees later tokens"


def test_a_leak_is_not_trained(leaking, capsys):
    assert SAID in run_here(capsys, "train.py", "small.yaml", expected=2)
    assert not (leaking / "runs").exists()


@pytest.mark.heavy
def test_a_leak_that_was_trained_is_refused_by_every_script(leaking, capsys, monkeypatch):
    monkeypatch.setattr(build, "check_causal", lambda *_: None)
    run_here(capsys, "train.py", "small.yaml")
    comparison = {
        "mode": "train",
        "base": "small.yaml",
        "budget": {"unit": "steps", "amount": 3},
        "schemes": {"euler": {"solver": "euler"}},
    }
    (leaking / "compare.yaml").write_text(yaml.safe_dump(comparison))
    run_here(capsys, "compare.py", "compare.yaml")
    monkeypatch.undo()
    monkeypatch.chdir(leaking)
    for command in (["sample.py", "runs/small"], ["evaluate.py", "runs/small"]):
        assert SAID in run_here(capsys, *command, "--trust", expected=2)
    # The runs of the comparison are there.
    assert SAID in run_here(capsys, "compare.py", "compare.yaml", expected=2)
