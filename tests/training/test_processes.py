"""Runs of two processes, over loopback: the losses of one, and what is said of a lost one."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from helpers import SCRIPTS
from running import run_script
from training.tiny_runs import configured, losses, without_its_end, write_config

from ide_transformer import InputError, training


def start(config, runs, address, rank, *more, timeout=30):
    """One of two processes."""
    command = [sys.executable, SCRIPTS / "train.py", config, "--runs", runs]
    command += ["parallel.processes=2", f"parallel.coordinator={address}", *more]
    command += [f"parallel.rank={rank}", f"parallel.timeout={timeout}", "parallel.data=2"]
    return subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.fixture
def address():
    """One at which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.heavy
def test_two_processes_give_the_losses_of_one(tmp_path, address):
    config, runs = write_config(tmp_path), tmp_path / "runs"
    two = [start(config, runs, address, rank) for rank in (0, 1)]
    outputs = [process.communicate(timeout=500)[0] for process in two]
    assert [process.returncode for process in two] == [0, 0], outputs
    assert "validation_loss: " in outputs[0] and "loss" not in outputs[1]
    run_script("train.py", config, "--runs", tmp_path / "alone")
    found, expected = losses(runs / "small"), losses(tmp_path / "alone/small")
    # One process wrote, and wrote every line once.
    assert len(found) == 20 and [x.name for x in runs.iterdir()] == ["small"]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # What two have begun, one goes on with.
    folder = without_its_end(runs / "small", tmp_path / "resumed")
    alone = ("processes=null", "coordinator=null", "rank=null", "data=1")
    run_script("train.py", folder, "--resume", *(f"parallel.{x}" for x in alone))
    np.testing.assert_allclose(losses(folder), expected, atol=1e-5)


@pytest.mark.heavy
def test_when_a_process_is_killed_the_other_says_so_and_one_goes_on(tmp_path, address):
    config, runs = write_config(tmp_path, steps=5000), tmp_path / "runs"
    first, second = (start(config, runs, address, rank) for rank in (0, 1))
    checkpoint = runs / "small/checkpoints/20"
    while not checkpoint.exists():
        assert first.poll() is None and second.poll() is None
        time.sleep(0.5)
    second.kill()
    began = time.monotonic()
    output, _ = first.communicate(timeout=300)
    assert time.monotonic() - began < 60
    assert first.returncode == 2, output
    assert "error: process 0: another process of this run has ended" in output
    assert "Traceback" not in output
    second.communicate()
    assert losses(runs / "small")


@pytest.mark.thorough
@pytest.mark.heavy
def test_a_request_to_one_process_stops_all_at_the_same_step(tmp_path, address):
    config, runs = write_config(tmp_path, steps=5000), tmp_path / "runs"
    both = [start(config, runs, address, rank) for rank in (0, 1)]
    while not (runs / "small/checkpoints/20").exists():
        assert all(process.poll() is None for process in both)
        time.sleep(0.5)
    both[1].terminate()
    outputs = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [-signal.SIGTERM] * 2, outputs
    (stopped,) = re.findall(r"Stopped after step (\d+)", outputs[0])
    assert stopped in outputs[1] and (runs / "small/checkpoints" / stopped).is_dir()


@pytest.mark.heavy
def test_a_process_that_never_appears_is_waited_for_no_longer_than_said(tmp_path, address):
    alone = start(write_config(tmp_path), tmp_path / "runs", address, 0, timeout=5)
    output, _ = alone.communicate(timeout=200)
    assert alone.returncode == 2 and "did not all appear" in output, output
    assert "parallel.timeout" in output and "Traceback" not in output
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "error, said",
    [
        (
            ValueError("coordinator_address should be defined."),
            r"parallel\.coordinator=HOST:PORT",
        ),
        (RuntimeError("must be called before any JAX calls"), "before anything is computed"),
    ],
)
def test_what_keeps_processes_apart_is_said(tmp_path, monkeypatch, error, said):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    config = configured(tmp_path, ["parallel.processes=2"])
    with pytest.raises(InputError, match=said):
        training.train(config, runs=tmp_path / "runs")
    assert os.listdir(tmp_path) == ["text.txt"]
