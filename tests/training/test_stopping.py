"""Runs that are killed, terminated and interrupted, at any instant, end as if they had not
been."""

import contextlib
import json
import multiprocessing
import os
import random
import runpy
import signal
import subprocess
import sys
import time

import pytest
import yaml
from helpers import ROOT, SCRIPTS
from running import logged
from training import stub
from training.conftest import TEXT


STEPS = 16
SECTIONS = {
    "data": {"name": "text", "path": "text.txt"},
    "model": {"operators": ["feed_forward"], "dropout": 0.1},
    "training": {
        **{"steps": STEPS, "batch_size": 4, "log_every": 3, "checkpoint_every": 4},
        **{"evaluate_every": 8, "keep_best": True, "refine": {0: 1, 8: 2}},
    },
}
# Imports the package once; each run is a process that begins without a device.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["ide_transformer.training", "ide_transformer.figures"])


def train(folder, resume):
    """The script, in a process of its own."""
    os.chdir(folder)
    os.environ.pop("PYTEST_CURRENT_TEST", None)
    output = os.open("output", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv = ["train.py", "config.yaml", *["--resume"] * resume]
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    (folder / "begun").touch()
    runpy.run_path(str(SCRIPTS / "train.py"), run_name="__main__")


class Run:
    """A run in a folder, whose process is started again and again."""

    def __init__(self, folder):
        self.folder, self.run = folder, folder / "runs/small"
        folder.mkdir()
        (folder / "text.txt").write_text(TEXT)
        (folder / "config.yaml").write_text(yaml.safe_dump(stub.tree(**SECTIONS)))

    @property
    def output(self):
        return (self.folder / "output").read_text()

    def start(self):
        (self.folder / "begun").unlink(missing_ok=True)
        process = FORKS.Process(target=train, args=(self.folder, self.run.exists()))
        process.start()
        while process.is_alive() and not (self.folder / "begun").exists():
            time.sleep(0.001)
        return process

    def end(self):
        """Runs to the end, and gives what has to be the same for all runs."""
        process = self.start()
        process.join(300)
        assert process.exitcode == 0, self.output
        assert "Traceback" not in self.output
        (arrays,) = (self.run / f"checkpoints/{STEPS}/arrays").glob("metadata")
        state = json.loads(arrays.read_text())["arrays"]
        summary = json.loads((self.run / "summary.json").read_text())
        return state, logged(self.run), {**summary, "seconds": 0}

    def writes_a_checkpoint(self):
        with contextlib.suppress(FileNotFoundError):
            return any("tmp" in path.name for path in (self.run / "checkpoints").iterdir())
        return False

    def disturb(self, number, wait):
        """Starts the run and sends a signal after a time, or without one as soon as a
        checkpoint is being written; whether the signal came before the end."""
        process = self.start()
        if wait is not None:
            process.join(wait)
        else:
            while process.is_alive() and not self.writes_a_checkpoint():
                time.sleep(0.0005)
        if not process.is_alive():
            return False
        os.kill(process.pid, number)
        asked = time.monotonic()
        process.join(60)
        assert time.monotonic() - asked < 10, self.output
        assert process.exitcode in (0, -number), (process.exitcode, self.output)
        return process.exitcode == -number


@pytest.mark.long
@pytest.mark.heavy
def test_a_run_that_is_stopped_again_and_again_ends_the_same(tmp_path, thorough):
    """Also where it is refined, and while it writes a checkpoint."""
    began = time.monotonic()
    expected = Run(tmp_path / "undisturbed").end()
    seconds = time.monotonic() - began
    instants = random.Random(13)
    done, started, run = 0, 0, Run(tmp_path / "0")
    while done < (20 if thorough else 2) and started < 40:
        started += 1
        number = (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT)[done % 4]
        wait = instants.uniform(0, seconds) if started % 2 else None
        done += run.disturb(number, wait)
        if (run.run / "summary.json").exists():
            assert run.end() == expected
            run = Run(tmp_path / str(started))
    assert run.end() == expected


@pytest.mark.heavy
@pytest.mark.parametrize("module", ["numpy", "jax", "ide_transformer.equation"])
def test_an_interrupt_while_the_package_is_imported_ends_quietly(module):
    wrong = [ROOT / "configs/shakespeare.yaml", "training.steps=none"]
    command = [sys.executable, "-X", "importtime", SCRIPTS / "train.py", *wrong]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while line := process.stderr.readline():
            if line.split()[-1] == module:
                process.send_signal(signal.SIGINT)
        assert process.wait(10) == -signal.SIGINT


@pytest.mark.heavy
def test_a_step_that_does_not_end_is_not_waited_for(tmp_path):
    """The process is gone after the time of grace, here half a second, though it waits."""
    program = tmp_path / "program.py"
    program.write_text(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
        "from ide_transformer.training import stopping\n"
        "stopping._GRACE = 0.5\n"
        "with stopping.stop_requests() as stop:\n"
        "    print('ready', flush=True)\n"
        "    if sys.argv[1] == 'waits':\n"
        "        time.sleep(60)\n"
        "    while not stop.made:\n"
        "        time.sleep(0.01)\n"
        "    if sys.argv[1] == 'writes':\n"
        "        stop.step_ended()\n"
        "        time.sleep(1.5)\n"
        "print('left')\n"
    )
    for how, number, status, said in [
        ("waits", signal.SIGTERM, 128 + signal.SIGTERM, "did not end within"),
        ("obeys", signal.SIGINT, 0, "left"),
        # A checkpoint takes longer than the time of grace.
        ("writes", signal.SIGTERM, 0, "left"),
    ]:
        command = [sys.executable, program, how]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        output, _ = process.communicate(timeout=20)
        assert process.returncode == status and said in output
