"""Runs of two processes, over loopback, have the losses of one; a request to one stops both,
and one says when it lost the other."""

import functools as ft
import os
import re
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
# The rates of a run that has no end.
CONSTANT = {"schedule": "constant"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_text(TEXT)
    monkeypatch.chdir(tmp_path)


def write(**training):
    """A configuration; the path of its text is the same for both processes."""
    tree = config(training=training, optimizer=CONSTANT).as_tree()
    Path("small.yaml").write_text(yaml.safe_dump(tree))


def start(*arguments):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, SCRIPTS / "train.py", *arguments, "parallel.processes=2"]
    command += [f"parallel.coordinator={address}", "parallel.data=2", "parallel.timeout=30"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = ft.partial(subprocess.Popen, **pipes, env=os.environ | {"JAX_ENABLE_X64": "1"})
    return [process([*command, f"parallel.rank={rank}"]) for rank in range(2)]


def ended(processes, statuses):
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
def test_two_processes_give_the_losses_of_one_and_end_together(folder):
    """A request to one stops both. They resume; when one is killed the other says so."""
    write(steps=10**6, checkpoint_every=50, evaluate_every=10**6)
    processes = start("small.yaml")
    wait_for(50, processes)
    processes[1].terminate()
    outputs = ended(processes, [-signal.SIGTERM] * 2)
    (stopped,) = re.findall(r"Stopped after step (\d+)", outputs[0])
    assert stopped in outputs[1] and "loss" not in outputs[1]
    # One process wrote, and wrote every line once.
    assert [x.name for x in Path("runs").iterdir()] == ["small"]
    losses = stub.losses(training.RunFolder("runs/small"))
    assert len(losses) == int(stopped)
    alone = training.train(config(optimizer=CONSTANT), runs=Path("alone"))
    np.testing.assert_allclose(losses[:4], stub.losses(alone), atol=1e-5)
    first, second = start("runs/small", "--resume")
    wait_for(int(stopped) // 50 * 50 + 50, (first, second))
    second.kill()
    began = time.monotonic()
    (output,) = ended([first], [2])
    assert time.monotonic() - began < 60
    assert "error: process 0: another process of this run has ended" in output
    second.communicate()
