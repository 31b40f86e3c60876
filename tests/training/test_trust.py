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
pathlib.Path("ran").touch()
f = lambda x: x
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


COMMANDS = (
    *("sample.py runs/gift --length 2", "evaluate.py runs/gift", "report.py runs/gift"),
    *("convert.py runs/gift there", "depth.py runs/gift", "resolution.py runs/gift"),
    *("train.py runs/gift --resume", "train.py gift --resume"),
    *("train.py runs/gift/config.yaml", "compare.py solve.yaml", "compare.py train.yaml"),
)


def test_every_script_refuses_code_of_a_run(gift, capsys):
    solved = "mode: solve\nrun: runs/gift\nschemes: {euler: {solver: euler, steps: [1]}}"
    Path("solve.yaml").write_text(solved)
    trained = "mode: train\nbase: runs/gift/config.yaml\nschemes: {own: {}}"
    Path("train.yaml").write_text(f"{trained}\nbudget: {{unit: steps, amount: 3}}")
    for command in COMMANDS:
        said = run_here(capsys, *command.split(), expected=2)
        assert "config.yaml names code of its own" in said, command
        assert "model.activation=act:f" in said and "--trust" in said, command
    assert not Path("ran").exists()


def test_code_that_is_trusted_is_run(gift, capsys):
    """Also that which the user wrote, in the configuration with which a run goes on."""
    with pytest.raises(ide.InputError, match=r"act:f.*trust=True"):
        ide.load_run("runs/gift")
    run_here(capsys, "evaluate.py", "runs/gift", "--samples", 4, "--trust")
    assert Path("ran").exists()
    given = training.load_config("runs/gift/config.yaml", trust=True)
    assert training.RunFolder(gift).load_config(given) == given
    names(gift, "gelu")
    training.load_config("runs/gift/config.yaml", ["model.activation=act:f"])


def test_what_is_never_imported_or_called(gift, capsys):
    (gift / "plots").mkdir(exist_ok=True)
    (gift / "plots/__init__.py").write_text(CODE)
    (gift / "plots/act.py").write_text(CODE)
    for name, why in (
        ("runs.gift.plots.act:f", "runs.gift.plots.act lies in the folder of a run"),
        ("builtins:input", "it is a"),
        ("pathlib:Path", "it is a"),
    ):
        names(gift, name)
        said = run_here(capsys, "evaluate.py", "runs/gift", "--trust", expected=2)
        assert f"model.activation={name}: {why}" in said
    assert not Path("ran").exists()


def test_names_are_found_wherever_they_stand():
    tree = {
        "data": {"path": "a:b", "options": {"x": ["my.data:Set"]}},
        "solver": {"kind": "strang(mine:Heun)"},
        "model": {"operators": ["attention", {"kind": "mine:A"}], "pretrained": "/a:b"},
        "parallel": {"coordinator": "127.0.0.1:36231"},
    }
    found = {"data.options.x.0": "my.data:Set", "solver.kind": "mine:Heun"}
    assert names_of_code(tree) == found | {"model.operators.1.kind": "mine:A"}


def test_a_leak_that_was_trained_is_refused(there, monkeypatch):
    """Its attention saw all tokens."""
    offers = training.build.offers_of
    monkeypatch.setattr(training.build, "offers_of", lambda x, causal: offers(x, causal=False))
    with pytest.raises(ide.InputError, match="operator 0, Attention, sees later tokens"):
        training.load_run(RUN)
