"""Runs of two processes, over loopback, have the losses of one; a request to one stops both,
and one says when it lost the other."""

import functools as ft
import os
import re
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
from tests.training import stub
from tests.training.conftest import TEXT, config


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
