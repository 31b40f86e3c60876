"""A run that somebody sends runs none of its own code without a word, and one whose outputs
depend on later tokens is not used."""

import sys
from pathlib import Path

import pytest
import yaml
from running import run_here
from training.conftest import RUN

import ide_transformer as ide
from ide_transformer import training
from ide_transformer.training.names import names_of_code


CODE = """
import pathlib
pathlib.Path("ran").write_text("yes")

def f(x):
    return x
"""


@pytest.fixture
def gift(there):
    """A run, in whose configuration a module of the current folder was written."""
    folder = RUN.rename("runs/gift")
    Path("act.py").write_text(CODE)
    names(folder, "act:f")
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] in ("act", "runs")]:
        sys.modules.pop(name)


def names(folder: Path, activation: str) -> None:
    tree = yaml.safe_load((folder / "config.yaml").read_text())
    tree["model"]["activation"] = activation
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))


COMMANDS = {
    "sample.py": ["runs/gift", "--length", 2],
    "evaluate.py": ["runs/gift", "--samples", 4],
    "report.py": ["runs/gift"],
    "convert.py": ["runs/gift", "there"],
    "depth.py": ["runs/gift"],
    "resolution.py": ["runs/gift"],
    "train.py": ["runs/gift", "--resume"],
    "train.py ": ["gift", "--resume"],
    "train.py  ": ["runs/gift/config.yaml"],
    "compare.py": ["compare.yaml"],
    "compare.py ": ["train.yaml"],
}


def test_every_script_refuses_code_of_a_run(gift, capsys):
    schemes = {"euler": {"solver": "euler", "steps": [1]}}
    comparison = {"mode": "solve", "run": "runs/gift", "schemes": schemes}
    Path("compare.yaml").write_text(yaml.safe_dump(comparison))
    trained = {"mode": "train", "base": "runs/gift/config.yaml", "schemes": {"own": {}}}
    trained["budget"] = {"unit": "steps", "amount": 3}
    Path("train.yaml").write_text(yaml.safe_dump(trained))
    for script, arguments in COMMANDS.items():
        said = run_here(capsys, script.strip(), *arguments, expected=2)
        assert "config.yaml names code of its own" in said, script
        assert "model.activation=act:f" in said and "--trust" in said, script
    assert not Path("ran").exists()


def test_code_that_is_trusted_is_run(gift, capsys):
    with pytest.raises(ide.InputError, match=r"act:f.*trust=True"):
        ide.load_run("runs/gift")
    assert "loss" in run_here(capsys, "evaluate.py", "runs/gift", "--trust")
    assert Path("ran").exists()
    assert ide.load_run("runs/gift", trust=True)[0].inputs.features == 4


def test_names_that_the_user_wrote_need_no_trust(gift, capsys, monkeypatch):
    """The run goes on by the configuration with which it began, and by one on the command
    line."""
    given = training.load_config("runs/gift/config.yaml", trust=True)
    assert training.RunFolder(gift).load_config(given) == given
    names(gift, "gelu")
    monkeypatch.setattr(training.run, "new_folder", lambda *_: sys.exit())  # it would start
    command = ("train.py", "runs/gift/config.yaml", "model.activation=act:f", "name=other")
    run_here(capsys, *command, expected=None)
    assert Path("ran").exists()


def test_what_is_never_imported_or_called(gift, capsys):
    evaluate = ("evaluate.py", "runs/gift", "--trust")
    for below in ("plots", "checkpoints"):
        (gift / below).mkdir(exist_ok=True)
        (gift / below / "__init__.py").write_text(CODE)
        (gift / below / "act.py").write_text(CODE)
        names(gift, f"runs.gift.{below}.act:f")
        said = run_here(capsys, *evaluate, expected=2)
        assert "lies in the folder of a run" in said
    assert not Path("ran").exists()
    for name in ("builtins:input", "builtins:print", "pathlib:Path"):
        names(gift, name)
        said = run_here(capsys, *evaluate, expected=2)
        assert f"model.activation={name}: it is a" in said


def test_names_are_found_wherever_they_stand():
    tree = {
        "data": {"path": "a:b", "options": {"x": ["my.data:Set"]}},
        "solver": {"kind": "strang(mine:Heun)"},
        "model": {"operators": ["attention", {"kind": "mine:A"}], "pretrained": "/a:b"},
        "parallel": {"coordinator": "127.0.0.1:36231"},
    }
    assert names_of_code(tree) == {
        "data.options.x.0": "my.data:Set",
        "solver.kind": "mine:Heun",
        "model.operators.1.kind": "mine:A",
    }


def test_a_leak_that_was_trained_is_refused(there, monkeypatch):
    """Its attention saw all tokens."""
    offers = training.build.offers_of
    monkeypatch.setattr(training.build, "offers_of", lambda x, causal: offers(x, causal=False))
    with pytest.raises(ide.InputError, match="operator 0, Attention, sees later tokens"):
        training.load_run(RUN)
