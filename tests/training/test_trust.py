"""Code that other people's files name runs only if it is trusted, wherever they name it. Texts
of such files reach a terminal as plain text."""

import sys
from pathlib import Path

import pytest
import yaml

import ide_transformer as ide
from ide_transformer import training
from ide_transformer.training.configuration.files import apply_overrides
from tests.helpers import fast_first
from tests.running import run_here
from tests.training import stub


RUN = Path("runs/gift")
# What a terminal would obey: a colour, the direction of writing, another line, a title.
OBEYED = "\x1b[31mred\x1b[0m", "\u202etxt.exe", "a\nerror: b", "\x1b]0;title\x07", "\x9b2J"
# A module of a package that nobody trusts.
EVIL = "from pathlib import Path\nPath('EXECUTED').touch()\nraise RuntimeError('executed')\n"
# Places of a configuration whose name of a class or function is imported: a key, values, and
# parts of values.
PLACES = [
    "training.costs={CODE: 0.1}",
    "data.name=CODE",
    "model.operators=[{kind: feed_forward, options: {activation: CODE}}]",
    "data.name=digits; model={kind: image_stage, layers: 1, stages: [{solver: CODE}]}",
    "solver=strang(CODE)",
    "training.trackers=[CODE]",
]


@pytest.fixture
def gift(tmp_path, monkeypatch):
    """Writes a run of somebody else beside a module that it names."""
    (tmp_path / "gift").mkdir()
    (tmp_path / "gift/evil.py").write_text(EVIL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / RUN / "checkpoints").mkdir(parents=True)

    def write(overrides, **tree):
        tree = stub.tree(version=3, **tree)
        apply_overrides(tree, overrides.replace("CODE", "gift.evil:Part").split("; "))
        (RUN / "config.yaml").write_text(yaml.safe_dump(tree))

    yield write
    sys.modules.pop("gift", None)


@pytest.fixture(autouse=True)
def untrained():
    with stub.untrained():
        yield


@pytest.mark.parametrize("place", fast_first(3, PLACES))
def test_code_is_imported_where_it_is_trusted_alone(gift, place):
    gift(place)
    with pytest.raises(ide.InputError, match=r"gift\.evil:Part.*--trust"):
        training.resume_run(RUN)
    assert not Path("EXECUTED").exists() and "gift" not in sys.modules
    with pytest.raises(ide.InputError, match=r"gift\.evil .*executed"):
        training.resume_run(RUN, trust=True)


COMMANDS = (
    *("sample runs/gift --length 2", "evaluate runs/gift", "report runs/gift"),
    *("rollout runs/gift", "convert runs/gift there", "depth runs/gift"),
    *("train runs/gift --resume", "train gift --resume"),
    *("train runs/gift/config.yaml", "compare solve.yaml", "compare train.yaml"),
)


def test_every_script_refuses_code_of_a_run(gift, capsys):
    gift("model.activation=CODE")
    solved = "mode: solve\nrun: runs/gift\nschemes: {euler: {solver: euler, steps: [1]}}"
    Path("solve.yaml").write_text(solved)
    trained = "mode: train\nbase: runs/gift/config.yaml\nschemes: {own: {}}"
    Path("train.yaml").write_text(f"{trained}\nbudget: {{unit: steps, amount: 3}}")
    for command in COMMANDS:
        output = run_here(capsys, *command.split(), expected=2)
        assert "config.yaml" in output, command
        assert "model.activation names gift.evil:Part" in output and "--trust" in output, (
            command
        )
    assert not Path("EXECUTED").exists()


def test_what_is_never_imported_or_called(gift, capsys):
    (RUN / "plots").mkdir()
    (RUN / "plots/act.py").write_text(EVIL)
    for name, why in (
        ("runs.gift.plots.act:f", "runs.gift.plots.act lies in the folder of a run"),
        ("builtins:input", "it is a"),
        ("pathlib:Path", "it is a"),
    ):
        gift(f"model.activation={name}")
        output = run_here(capsys, "evaluate", RUN, "--trust", expected=2)
        assert f"model.activation={name}: " in output and why in output
    assert not Path("EXECUTED").exists()


@pytest.mark.parametrize("where", ["key", "value", "override"])
def test_what_a_file_says_reaches_the_terminal_as_plain_text(where, gift, capsys):
    for text in OBEYED:
        tree = {
            "key": {"model": {text: 1}},
            "value": {"model": {"width": text}},
            "override": {},
        }[where]
        Path("own.yaml").write_text(yaml.safe_dump(stub.tree(**tree)))
        overrides = [f"model.{text}=1"] * (where == "override")
        output = run_here(capsys, "train", "own.yaml", *overrides, expected=2)
        message = output.split("error: ", 1)[1]
        assert message.removesuffix("\n").isprintable(), ascii(message)
