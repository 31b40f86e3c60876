"""Running the scripts, in this process or in one of their own."""

import json
import os
import runpy
import signal
import subprocess
import sys

from helpers import SCRIPTS


def run_apart(command, expected=0, **options):
    """A command in a process of its own."""
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == expected, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def run_here(capsys, script, *arguments, expected=0):
    """A script in this process, which has the package loaded; its output."""
    path, argv, environment = list(sys.path), sys.argv, dict(os.environ)
    sys.argv = [script, *map(str, arguments)]
    status, interrupt, hook = 0, signal.getsignal(signal.SIGINT), sys.unraisablehook
    try:
        runpy.run_path(str(SCRIPTS / script), run_name="__main__")
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
