"""Runs that are killed, terminated and interrupted, at any instant, end as if they were not.
Runs of two processes, over loopback, have the losses of one, and one says when it lost the
other."""

import functools as ft
import json
import multiprocessing
import os
import random
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from ide_transformer import training
from tests.helpers import SCRIPTS
from tests.running import logged
from tests.training import stub
from tests.training.conftest import TEXT, config


STEPS = 16
SECTIONS = {
    "data": {"name": "text", "path": "text.txt"},
    "model": {"operators": ["feed_forward"], "dropout": 0.1},
    "training": {
        **{"steps": STEPS, "batch_size": 4, "log_every": 3, "checkpoint_every": 4},
        **{
            "evaluate_every": 8,
            "keep_best": True,
            "schedule": [{"until": 8, "mesh": {"layers": 1}}],
        },
    },
}
# What an administrator, a shell, a scheduler, a limit and a fault send.
SIGNALS = [
    *(signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP),
    *(signal.SIGQUIT, signal.SIGUSR1, signal.SIGXCPU, signal.SIGSEGV),
]
# Imports the package once; each run is a process that begins without a device.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["ide_transformer.training", "ide_transformer.figures"])


def train_apart(folder, resume):
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

    def start(self):
        (self.folder / "begun").unlink(missing_ok=True)
        process = FORKS.Process(target=train_apart, args=(self.folder, self.run.exists()))
        process.start()
        while process.is_alive() and not (self.folder / "begun").exists():
            time.sleep(0.001)
        return process

    def end(self):
        """Runs to the end, and gives what has to be the same for all runs."""
        process = self.start()
        process.join(300)
        output = (self.folder / "output").read_text()
        assert process.exitcode == 0 and "Traceback" not in output, output
        (arrays,) = (self.run / f"checkpoints/{STEPS}/arrays").glob("metadata")
        state = json.loads(arrays.read_text())["arrays"]
        summary = json.loads((self.run / "summary.json").read_text())
        return state, logged(self.run), {**summary, "seconds": 0}

    def disturb(self, number, wait):
        """Starts the run and sends a signal after a time, or without one as soon as a
        checkpoint is being written; whether the signal came before the end."""
        process = self.start()
        process.join(wait or 0)
        while not wait and process.is_alive():
            if [*self.run.glob("checkpoints/*tmp*")]:
                break
            time.sleep(0.0005)
        if not process.is_alive():
            return False
        os.kill(process.pid, number)
        asked = time.monotonic()
        process.join(60)
        assert time.monotonic() - asked < 10
        assert process.exitcode in (0, -number), (self.folder / "output").read_text()
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
    while done < (20 if thorough else 3) and started < 40:
        started += 1
        number = SIGNALS[done % len(SIGNALS)]
        wait = instants.uniform(0, seconds) if started % 2 else None
        done += run.disturb(number, wait)
        if (run.run / "summary.json").exists():
            assert run.end() == expected
            run = Run(tmp_path / str(started))
    assert run.end() == expected


CHECKPOINTS = Path("runs/small/checkpoints")


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_text(TEXT)
    monkeypatch.chdir(tmp_path)


def write(**training):
    """A configuration; the path of its text is the same for both processes."""
    tree = config(training=training).model_dump(mode="json")
    Path("small.yaml").write_text(yaml.safe_dump(tree))


def start(*arguments, second=""):
    """Both processes. The second may be in another folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, SCRIPTS / "train.py", *arguments, "parallel.processes=2"]
    command += [f"parallel.coordinator={address}", "parallel.data=2", "parallel.timeout=30"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = ft.partial(subprocess.Popen, **pipes, env=os.environ | {"JAX_ENABLE_X64": "1"})
    where = enumerate((None, second or None))
    return [process([*command, f"parallel.rank={rank}"], cwd=cwd) for rank, cwd in where]


def ended(processes, statuses):
    """The outputs of processes that end with these statuses."""
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == statuses, outputs
    assert not any("Traceback" in output for output in outputs)
    return outputs


def wait_for(step, processes):
    while not (CHECKPOINTS / str(step)).exists():
        assert all(process.poll() is None for process in processes)
        time.sleep(0.1)


@pytest.mark.long
@pytest.mark.heavy
def test_two_processes_give_the_losses_of_one(here):
    write()
    said, nothing = ended(start("small.yaml"), [0, 0])
    assert "validation_loss: " in said and "loss" not in nothing
    # One process wrote, and wrote every line once.
    assert [x.name for x in Path("runs").iterdir()] == ["small"]
    expected = stub.losses(training.train(config(), runs=Path("alone")))
    run = training.RunFolder("runs/small")
    np.testing.assert_allclose(stub.losses(run), expected, atol=1e-5)
    assert len(expected) == 4
    # One process resumes what two began.
    alone = ("processes=null", "coordinator=null", "rank=null", "data=1")
    again = stub.resumed(run, Path("again"), 2, [f"parallel.{x}" for x in alone])
    np.testing.assert_allclose(stub.losses(again), expected, atol=1e-5)
    # Two do not, one of which has more checkpoints.
    shutil.copytree("runs", "other/runs")
    shutil.copy("text.txt", "other")
    shutil.rmtree(CHECKPOINTS / "4")
    outputs = ended(start(run.path, "--resume", second="other"), [2, 2])
    assert all("error: process 1 has another state than process 0" in x for x in outputs)
    assert "step: 4 there, 2 in process 0" in outputs[1]


@pytest.mark.long
@pytest.mark.heavy
def test_a_request_to_one_stops_both_and_when_one_is_killed_the_other_says_so(here):
    write(steps=10**6, checkpoint_every=50, evaluate_every=10**6)
    both = start("small.yaml")
    wait_for(50, both)
    both[1].terminate()
    outputs = ended(both, [-signal.SIGTERM] * 2)
    (stopped,) = re.findall(r"Stopped after step (\d+)", outputs[0])
    assert stopped in outputs[1]
    first, second = start("runs/small", "--resume")
    wait_for(int(stopped) // 50 * 50 + 50, (first, second))
    second.kill()
    began = time.monotonic()
    (output,) = ended([first], [2])
    assert time.monotonic() - began < 60
    assert "error: process 0: another process of this run has ended" in output
    second.communicate()
