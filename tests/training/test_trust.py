"""A run that somebody sends runs none of its own code without a word."""

import shutil
import sys
from pathlib import Path

import pytest
import yaml
from running import run_here
from training.tiny_runs import base

import ide_transformer as ide
from ide_transformer import training


CODE = """
import pathlib
pathlib.Path("ran").write_text("yes")

def f(x):
    return x
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run that names no code."""
    there = tmp_path_factory.mktemp("plain")
    tree = base(there, steps=3)
    tree["training"]["log_every"] = 1
    return training.train(training.Config.model_validate(tree), runs=there / "runs").path


@pytest.fixture
def gift(plain, tmp_path, monkeypatch):
    """The run, in whose configuration a module of the current folder was written."""
    folder = tmp_path / "runs/gift"
    shutil.copytree(plain, folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training.run, "plot_run", lambda *_: None)
    (tmp_path / "act.py").write_text(CODE)
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


@pytest.mark.parametrize("script", COMMANDS)
def test_a_script_refuses_code_of_a_run(gift, capsys, script):
    schemes = {"euler": {"solver": "euler", "steps": [1]}}
    comparison = {"mode": "solve", "run": "runs/gift", "schemes": schemes}
    Path("compare.yaml").write_text(yaml.safe_dump(comparison))
    trained = {"mode": "train", "base": "runs/gift/config.yaml", "schemes": {"own": {}}}
    trained["budget"] = {"unit": "steps", "amount": 3}
    Path("train.yaml").write_text(yaml.safe_dump(trained))
    said = run_here(capsys, script.strip(), *COMMANDS[script], expected=2)
    assert "config.yaml names code of its own" in said and "model.activation=act:f" in said
    assert "--trust" in said
    assert not Path("ran").exists()


def test_code_that_is_trusted_is_run(gift, capsys):
    run_here(capsys, "sample.py", "runs/gift", "--prompt", "the", "--length", 2, "--trust")
    assert Path("ran").exists()
    with pytest.raises(ide.InputError, match=r"act:f.*trust=True"):
        ide.load_run("runs/gift")
    assert ide.load_run("runs/gift", trust=True)[0].inputs.embedding.shape[0] > 2


def test_names_that_the_user_wrote_need_no_trust(gift, capsys):
    """The run goes on by the configuration with which it began, and by one on the command
    line."""
    assert training.RunFolder(gift).load_config(
        training.load_config("runs/gift/config.yaml", trust=True)
    )
    names(gift, "gelu")
    said = run_here(
        capsys, "train.py", "runs/gift/config.yaml", "model.activation=act:f", "name=other"
    )
    assert Path("ran").exists() and "validation_loss" in said


@pytest.mark.parametrize("below", ["plots", "checkpoints"])
def test_a_module_inside_of_a_run_is_never_imported(gift, capsys, below):
    (gift / below).mkdir(exist_ok=True)
    (gift / below / "__init__.py").write_text(CODE)
    (gift / below / "act.py").write_text(CODE)
    names(gift, f"runs.gift.{below}.act:f")
    said = run_here(capsys, "evaluate.py", "runs/gift", "--trust", expected=2)
    assert "lies in the folder of a run" in said
    assert not Path("ran").exists()


@pytest.mark.parametrize("name", ["builtins:input", "builtins:print", "pathlib:Path"])
def test_what_is_no_function_of_arrays_is_not_called(gift, capsys, name):
    names(gift, name)
    said = run_here(capsys, "evaluate.py", "runs/gift", "--trust", expected=2)
    assert f"model.activation={name}: it is a" in said


def test_names_are_found_wherever_they_stand():
    from ide_transformer.training.names import names_of_code

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
