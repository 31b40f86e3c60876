"""The command `ide-transformer`, its options and configurations; the benchmarks at tiny sizes,
what they write, and that they compare equal things."""

import sys
from importlib.metadata import EntryPoint, EntryPoints, version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ide_transformer import InputError
from ide_transformer.commands import main, run_script
from ide_transformer.commands.command import COMMANDS, GROUP
from ide_transformer.commands.options import check_can_be_written, config_file
from tests import running
from tests.helpers import ROOT, largest
from tests.running import run_here


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("trian", "Did you mean train?"),
        ("train quick --resme", "--resme. Did you mean --resume?"),
        ("--version", version("ide_transformer")),
    ],
)
def test_what_is_no_command_is_answered(capsys, monkeypatch, arguments, message):
    monkeypatch.setattr(sys, "argv", ["ide-transformer", *arguments.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == (0 if arguments == "--version" else 2)
    assert message in "".join(capsys.readouterr())


def test_packages_add_commands(capsys, monkeypatch, tmp_path):
    (tmp_path / "waves.py").write_text(
        '"""Counts waves: crests."""\nEXAMPLES = ""\n'
        "add_options = lambda parser: parser.add_argument('number')\n"
        "run = lambda options: print(f'waves: {options.number}')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    modules = {"waves": "waves", "broken": "no_such_module"}
    entries = EntryPoints(EntryPoint(name, value, GROUP) for name, value in modules.items())
    monkeypatch.setattr(running, "registered", lambda: entries)
    assert "waves: 3" in run_here(capsys, "waves", 3)
    listed = run_here(capsys, "--help")
    assert "  waves        counts waves\n" in listed and "  train        train a" in listed
    output = run_here(capsys, "broken", expected=2)
    assert "error: broken: no_such_module" in output
    output = run_here(capsys, "wave", expected=2)
    assert "waves?" in output
    monkeypatch.setattr(running, "registered", EntryPoints)
    assert "no such command" in run_here(capsys, "waves", 3, expected=2)


@pytest.mark.parametrize("name", sorted({*COMMANDS, *running.registered().names}))
def test_the_help_of_a_command_has_an_example(capsys, name):
    assert f"examples:\n  ide-transformer {name} " in run_here(capsys, name, "--help")


def test_a_configuration_is_a_file_or_has_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_file("compare/any_depth") == ROOT / "configs/compare/any_depth.yaml"
    (tmp_path / "quick").write_text("name: mine")
    assert config_file("quick").samefile(tmp_path / "quick")
    with pytest.raises(InputError, match=r"shakespear: .* shakespeare, "):
        config_file("shakespear")


def test_sizes_that_do_not_fit_into_memory_are_said_in_a_line(capsys, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit) as ended:
        run_script(lambda: jnp.zeros(1 << 50).block_until_ready())
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: RESOURCE_EXHAUSTED: Out of memory allocating")


def test_results_that_cannot_be_written_are_refused_first(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").touch()
    output = run_here(capsys, "evaluate", "none", "--json", "results/a/b", expected=2)
    assert "results/a" in output and "Not a directory" in output
    for path in (tmp_path / "results", tmp_path / "deep/down/new.json"):
        check_can_be_written(path)
    assert [*tmp_path.iterdir()] == [tmp_path / "results"]
    for path in (tmp_path, Path("/dev/null")):
        with pytest.raises(InputError, match="cannot be written"):
            check_can_be_written(path)


def test_options_that_say_nothing_are_refused(capsys):
    for command, message in (
        ("evaluate none --mesh 8", "layers=2,4,8"),
        ("evaluate none more --mesh layers=2", "drop more"),
        ("evaluate none --predictions a.png --mesh tokens=8,16", "tokens=8,16"),
        ("dynamics none --iterations 3", "--steer"),
        ("train coarse_first --plan evals=12", "evaluations=12000"),
        ("convergence --scheme paper_splitting --constraint free", "constraint"),
    ):
        name, *options = command.split()
        assert message in run_here(capsys, name, *options, expected=2)


@pytest.mark.heavy
def test_pytorch_learns_the_same():
    pytest.importorskip("torch")
    from benchmarks.with_torch.ours import OwnTraining, Setting
    from benchmarks.with_torch.theirs import TorchTraining

    jax.config.update("jax_enable_x64", False)
    try:
        setting = Setting(2, 3, 6, 16, heads=2, vocabulary=11)
        ours = OwnTraining(setting)
        torch = TorchTraining(
            *(setting, ours.initial_weights, ours.batches),
            *(setting.config.optimizer, ours.learning_rates(), False),
        )
        steps = 5
        np.testing.assert_allclose(ours.losses(steps), torch.losses(steps), rtol=1e-5)
        weights, expected = ours.state(), torch.state()
    finally:
        jax.config.update("jax_enable_x64", True)
    assert set(weights) == set(expected)
    for name, weight in weights.items():
        assert largest(weight, expected[name]) < 1e-5, name
        moved = np.abs(weight - ours.initial_weights[name]).max()
        assert moved > 1e-5, name
