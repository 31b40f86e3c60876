"""Running the scripts, in this process or in one of their own."""

import json
import os
import runpy
import signal
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint, EntryPoints
from unittest import mock

import yaml

from ide_transformer.commands import main
from ide_transformer.commands.command import GROUP
from tests.helpers import ROOT, SCRIPTS


def run_apart(command, expected=0, **options):
    """A command in a process of its own."""
    process = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, **options
    )
    assert process.returncode == expected, process.stdout + process.stderr
    assert "Traceback" not in process.stderr
    return process


def registered():
    """The commands that pyproject.toml registers, also before it is installed again."""
    text = (ROOT / "pyproject.toml").read_text()
    entry_points = tomllib.loads(text)["project"]["entry-points"][GROUP]
    return EntryPoints(EntryPoint(name, value, GROUP) for name, value in entry_points.items())


def run_here(capsys, command, *arguments, expected=0):
    """A command, or a script NAME.py, in this process, which has the package loaded; its
    output."""
    path, argv, environment = list(sys.path), sys.argv, dict(os.environ)
    sys.argv = [command, *map(str, arguments)]
    if not command.endswith(".py"):
        sys.argv = ["ide-transformer", *sys.argv]
    status, interrupt, hook = 0, signal.getsignal(signal.SIGINT), sys.unraisablehook
    try:
        if command.endswith(".py"):
            runpy.run_path(str(SCRIPTS / command), run_name="__main__")
        else:
            lookup = "ide_transformer.commands.command.entry_points"
            with mock.patch(lookup, lambda group: registered().select(group=group)):
                main()
    except SystemExit as end:
        status = end.code
    finally:
        signal.signal(signal.SIGINT, interrupt)
        sys.unraisablehook = hook
        sys.path[:], sys.argv = path, argv
        os.environ.clear()
        os.environ.update(environment)
    output = capsys.readouterr()
    assert status == expected, output.out + output.err
    return output.out + output.err


def logged(folder):
    """The log of a run without the clock's readings, which no two runs share."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    clock = {"tokens_per_second", "seconds"}
    return [{k: v for k, v in line.items() if k not in clock} for line in lines]


def write_run(folder, *, solver, losses, **summary):
    """A run as if it had been made."""
    (folder / "plots").mkdir(parents=True)
    config = {"version": 3, "name": folder.name, "solver": solver}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "fingerprints.json").write_text('{"run": "0", "sources": ["0.1 (abc)"]}')
    lines = [{"step": n, "loss": x, "field_evaluations": 2} for n, x in enumerate(losses, 1)]
    lines += [{"step": len(losses), "validation_loss": losses[-1]}]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    if summary:
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder
