"""The command `ide-transformer`, its options and the configurations of the package."""

import sys
from importlib.metadata import version

import jax.numpy as jnp
import pytest
from helpers import ROOT
from running import run_here

from ide_transformer import InputError
from ide_transformer.commands import main, run_script
from ide_transformer.commands.options import config_file, no_config


@pytest.mark.parametrize(
    ("given", "said"),
    [("trian", "did you mean train?"), ("--version", version("ide_transformer"))],
)
def test_what_is_no_command_is_answered(capsys, monkeypatch, given, said):
    monkeypatch.setattr(sys, "argv", ["ide-transformer", *given.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == (0 if given == "--version" else 2)
    assert said in "".join(capsys.readouterr())


def test_a_configuration_is_a_file_or_has_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_file("compare/any_depth") == ROOT / "configs/compare/any_depth.yaml"
    (tmp_path / "quick").write_text("name: mine")
    assert config_file("quick").samefile(tmp_path / "quick")
    with pytest.raises(InputError, match=r"shakespear: .* closest are shakespeare, "):
        raise no_config(config_file("shakespear"))


def test_sizes_that_do_not_fit_into_memory_are_said_in_a_line(capsys, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit) as ended:
        run_script(lambda: jnp.zeros(1 << 50).block_until_ready())
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: RESOURCE_EXHAUSTED: Out of memory allocating")


def test_options_that_say_nothing_are_refused(capsys):
    for command, said in (
        ("evaluate none --mesh 8", "write key=value, for example intervals=2,4,8"),
        (
            "evaluate none --text a.txt data.options.points=3",
            "points=3 cannot be combined with",
        ),
        ("evaluate none --rollout 4 --mesh intervals=2 --layers first", "--layers cannot be"),
        ("evaluate none --rollout 4 --figure a.png --measure loss", "one of error, spectrum"),
        ("evaluate none --rollout 4 --part test", "--part cannot be combined with --rollout"),
        ("dynamics none --iterations 3", "--iterations: give --steer too"),
        ("dynamics none --steer 0.9 --predict", "--predict cannot be combined"),
        ("train quick --samples 2", "--samples needs --plan devices"),
        ("train coarse_first --plan evals=12", "write evaluations=12000, seconds=300 or"),
        ("resolution --random 1 --scheme etdab2", "--scheme etdab2: it cannot solve"),
        ("convergence --scheme paper_splitting --constraint free", "None of these schemes can"),
        ("translate none --length-penalty 2", "--length-penalty needs --beams"),
    ):
        name, *options = command.split()
        assert said in run_here(capsys, f"{name}.py", *options, expected=2)
