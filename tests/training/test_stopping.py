"""Runs that are killed, terminated and interrupted, at any instant, end as if they had not
been."""

import contextlib
import json
import math
import multiprocessing
import os
import random
import runpy
import signal
import subprocess
import sys
import time

import pytest
from helpers import SCRIPTS, fast_first
from running import logged


TEXT = "The quick brown fox jumps over the lazy dog; who knows why?\n" * 60
STEPS = 40
CONFIG = """
name: small
data: {name: text, path: %s}
model: {width: 64, heads: 2, depth: 2, context: 64, dropout: 0.1}
optimizer: {warmup: 2}
training:
  {steps: %d, batch_size: 16, log_every: 3, checkpoint_every: 4, evaluate_every: 8,
   evaluate_samples: 64, sample: 4%s}
"""
# Imports the package once; each run is a process that begins without a device.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["ide_transformer.training", "ide_transformer.figures"])


def train(folder, resume, devices):
    """The script, in a process of its own with so many devices."""
    count = f"--xla_force_host_platform_device_count={devices}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {count}".strip()
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

    def __init__(self, folder, more="", mesh=None):
        self.folder = folder
        self.devices = math.prod((mesh or {}).values())
        self.run = folder / "runs/small"
        folder.mkdir()
        (folder / "text.txt").write_text(TEXT)
        parallel = f"parallel: {json.dumps(mesh or {})}\n"
        (folder / "config.yaml").write_text(CONFIG % ("text.txt", STEPS, more) + parallel)

    @property
    def output(self):
        return (self.folder / "output").read_text()

    @property
    def so_far(self):
        """The output of a process that may not have begun to write."""
        with contextlib.suppress(FileNotFoundError):
            return self.output
        return ""

    def start(self):
        (self.folder / "begun").unlink(missing_ok=True)
        process = FORKS.Process(
            target=train, args=(self.folder, self.run.exists(), self.devices)
        )
        process.start()
        while process.is_alive() and not (self.folder / "begun").exists():
            time.sleep(0.001)
        return process

    def end(self):
        """Runs to the end, and gives what has to be the same for all runs."""
        process = self.start()
        process.join(300)
        assert process.exitcode == 0, self.output
        state = json.loads(
            next((self.run / f"checkpoints/{STEPS}/arrays").glob("metadata")).read_text()
        )["arrays"]
        summary = json.loads((self.run / "summary.json").read_text())
        return state, logged(self.run), {**summary, "seconds": 0}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The end of an undisturbed run, and the seconds that it takes."""
    run = Run(tmp_path_factory.mktemp("undisturbed") / "run")
    began = time.monotonic()
    return run.end(), time.monotonic() - began


def writes_a_checkpoint(run):
    with contextlib.suppress(FileNotFoundError):
        return any("tmp" in path.name for path in (run.run / "checkpoints").iterdir())
    return False


def disturb(run, number, instants, seconds):
    """Starts the run and sends a signal after a random time, or every second time as soon as
    a checkpoint is being written; whether the signal came before the end, and its instant."""
    process = run.start()
    began = time.monotonic()
    if next(instants) % 2:
        wait = random.uniform(0, seconds)
        process.join(wait)
    else:
        while process.is_alive() and not writes_a_checkpoint(run):
            time.sleep(0.0005)
    if not process.is_alive():
        return False
    os.kill(process.pid, number)
    asked = time.monotonic()
    process.join(60)
    assert time.monotonic() - asked < 10, run.output
    assert process.exitcode in (0, -number), (process.exitcode, run.output)
    print(f"{signal.Signals(number).name} after {asked - began:.2f} s: {process.exitcode}")
    return process.exitcode == -number


@pytest.mark.heavy
@pytest.mark.parametrize(
    "numbers",
    fast_first(0, [((signal.SIGKILL,),), ((signal.SIGTERM, signal.SIGINT),)], heavy=1),
)
def test_runs_that_are_stopped_again_and_again_end_the_same(
    undisturbed, tmp_path, numbers, thorough
):
    stop_again_and_again(*undisturbed, tmp_path, numbers, 20 if thorough else 3)


@pytest.mark.thorough
@pytest.mark.heavy
def test_runs_on_a_mesh_that_are_stopped_again_and_again_end_the_same(tmp_path):
    mesh = {"data": 2, "fsdp": 2}
    began = time.monotonic()
    expected = Run(tmp_path / "undisturbed", mesh=mesh).end()
    seconds = time.monotonic() - began
    signals = signal.SIGKILL, signal.SIGTERM
    stop_again_and_again(expected, seconds, tmp_path, signals, 10, mesh)


def stop_again_and_again(expected, seconds, there, numbers, times, mesh=None):
    random.seed(13)
    done, instants, run = 0, iter(range(1000)), Run(there / "0", mesh=mesh)
    while done < times:
        done += disturb(run, numbers[done % len(numbers)], instants, seconds)
        if (run.run / "summary.json").exists():
            assert run.end() == expected
            run = Run(there / str(done), mesh=mesh)
    assert run.end() == expected
    assert "Traceback" not in run.output


@pytest.mark.thorough
@pytest.mark.heavy
def test_a_run_that_is_killed_where_it_is_refined_ends_the_same(tmp_path):
    """The checkpoint of the last step before it may be whole, half written, or not begun."""
    refine = ", refine: {0: 1, 16: 2}"
    whole, run = (Run(tmp_path / name, refine) for name in ("whole", "killed"))
    expected = whole.end()
    process = run.start()
    while process.is_alive() and "step 16: refined" not in run.so_far:
        time.sleep(0.0005)
    process.kill()
    process.join(60)
    assert not (run.run / "summary.json").exists()
    assert run.end() == expected
    assert "Traceback" not in run.output


@pytest.mark.heavy
@pytest.mark.parametrize("seconds", [0.1, 0.6, 1.2])
def test_an_interrupt_at_the_start_ends_quietly(tmp_path, seconds):
    """Also while the package is imported."""
    run = Run(tmp_path / "run")
    command = [sys.executable, SCRIPTS / "train.py", "config.yaml"]
    process = subprocess.Popen(
        command, cwd=run.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=10)
    assert process.returncode == -signal.SIGINT and "Traceback" not in output, output


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
