"""Texts larger than what a process may hold: the memory that they take, and runs on them that
are killed. The figures for 300 MB are in docs/how-to/large-corpus.md."""

import json
import signal
import subprocess
import sys
import time

import pytest
from helpers import SCRIPTS
from running import logged
from tasks.large_corpus import documents, write_corpus

from ide_transformer.tasks import shakespeare


CONFIG = """
name: large
data: {{name: dataset, path: {path}, validation: 0.0001}}
model: {{width: 16, heads: 2, depth: 1, context: 64}}
optimizer: {{warmup: 1}}
training:
  {{steps: 300, batch_size: 8, log_every: 1, checkpoint_every: 5, evaluate_every: 150,
   sample: 0}}
"""


# The peak of a process counts that of its parent before it, so a small one starts it.
MEASURED = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:], stdout=sys.stderr)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""


def command_of(script, *arguments):
    return [sys.executable, *map(str, (SCRIPTS / script, *arguments))]


def start(script, *arguments):
    return subprocess.Popen(command_of(script, *arguments))


def peak(script, *arguments):
    """Runs a script that succeeds; its largest memory in MiB."""
    command = [sys.executable, "-c", MEASURED, *command_of(script, *arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout) / 1024


def kill_when(process, condition):
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.long
@pytest.mark.heavy
def test_memory_does_not_grow_with_the_text_and_a_killed_run_sees_the_same(tmp_path):
    memory = {}
    for size in (8, 128):
        write_corpus(tmp_path, f"{size}", documents(shakespeare(), size * 2**20))
        config = tmp_path / f"{size}.yaml"
        config.write_text(CONFIG.format(path=tmp_path / f"{size}.jsonl"))
        # The first run makes the tokens.
        memory[size] = [
            peak("train.py", config, "--runs", tmp_path / f"runs{size}{which}")
            for which in ("first", "second")
        ]
    # The maps of a text and of its tokens, a byte each, count as memory where they were read.
    for small, large in zip(memory[8], memory[128], strict=True):
        assert large < small + 2 * 128 + 64, memory
    whole = tmp_path / "runs128first/large"
    runs = tmp_path / "killed"
    log = runs / "large/metrics.jsonl"
    run = start("train.py", config, "--runs", runs)
    kill_when(run, lambda: log.exists() and log.read_text().count("\n") > 22)
    peak("train.py", runs / "large", "--resume")
    assert logged(runs / "large") == logged(whole)
    assert len(json.loads((whole / "fingerprints.json").read_text())["its data"]) == 64
