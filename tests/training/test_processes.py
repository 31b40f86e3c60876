"""Runs of two processes, over loopback: the losses of one, and what is said of a lost one."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import SCRIPTS
from running import run_script
from training.tiny_runs import TEXT, configured, losses, without_its_end, write_config

from ide_transformer import InputError, training


def start(config, runs, address, rank, *more, timeout=30, cwd=None, env=None):
    """One of two processes."""
    command = [sys.executable, SCRIPTS / "train.py", config, "--runs", runs]
    command += ["parallel.processes=2", f"parallel.coordinator={address}", *more]
    command += [f"parallel.rank={rank}", f"parallel.timeout={timeout}", "parallel.data=2"]
    return subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=cwd,
        env={**os.environ, **(env or {})},
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


def other_data(there):
    config = write_config(there)
    (there / "text.txt").write_text(TEXT.replace("wide", "cold"))
    return config, {}, ()


def other_version(there):
    package = Path(training.__file__).parents[1]
    shutil.copytree(package, there / "ide_transformer")
    with (there / "ide_transformer/errors.py").open("a") as file:
        file.write("# changed\n")
    return write_config(there), {"PYTHONPATH": str(there)}, ()


def other_configuration(there):
    return write_config(there), {}, ("optimizer.learning_rate=0.3",)


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("other", "said", "values"),
    [
        (other_configuration, "another configuration", "optimizer.learning_rate: 0.3 there"),
        (other_data, "other data", "checksum: "),
        (other_version, "another version", "version: "),
    ],
)
def test_processes_that_are_not_alike_do_not_begin(tmp_path, address, other, said, values):
    (tmp_path / "other").mkdir()
    config, environment, more = other(tmp_path / "other")
    (tmp_path / "text.txt").write_text(TEXT)
    # The path of the text, which is relative, is the same for both.
    config.write_text(config.read_text().replace(f"{tmp_path}/other/", ""))
    shutil.copy(config, tmp_path / config.name)
    given = tmp_path / "runs", address
    first = start(config.name, given[0], address, 0, cwd=tmp_path)
    second = start(config.name, *given, 1, *more, cwd=tmp_path / "other", env=environment)
    outputs = [process.communicate(timeout=300)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [2, 2], outputs
    for output in outputs:
        assert f"error: process 1 has {said} than process 0" in output
        assert "Traceback" not in output
    assert values in outputs[1] and not given[0].exists()


@pytest.mark.heavy
def test_processes_that_have_other_checkpoints_do_not_go_on(tmp_path, address):
    run_script("train.py", write_config(tmp_path), "--runs", tmp_path / "runs")
    there = [tmp_path / name for name in "ab"]
    for place in there:
        without_its_end(tmp_path / "runs/small", place / "runs/small")
    shutil.copytree(
        tmp_path / "runs/small/checkpoints/20", there[1] / "runs/small/checkpoints/20"
    )
    run, runs = "runs/small", "runs"
    both = [
        start(run, runs, address, rank, "--resume", cwd=place)
        for rank, place in enumerate(there)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [2, 2], outputs
    assert all("error: process 1 has another state than process 0" in x for x in outputs)
    assert "step: 20 there, 10 in process 0" in outputs[1]


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
