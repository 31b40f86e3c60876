"""Texts larger than what a process may hold: the memory that they take, and runs on them that
are killed. The figures for 300 MB are in docs/how-to/large-corpus.md."""

import signal
import subprocess
import sys
import time

import pytest
import yaml
from helpers import SCRIPTS
from running import logged
from tasks.large_corpus import documents, write_corpus
from training import stub

from ide_transformer.tasks import shakespeare


# The peak of a process counts that of its parent before it, so a small one starts it.
MEASURED = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:], stdout=sys.stderr)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""


@pytest.mark.long
@pytest.mark.heavy
def test_memory_does_not_grow_with_the_text_and_a_killed_run_sees_the_same(tmp_path):
    """The first run makes the tokens; the second finds them, is killed and goes on."""
    peaks = {}
    for size in (4, 64):
        write_corpus(tmp_path, f"{size}", documents(shakespeare(), size * 2**20))
        path = str(tmp_path / f"{size}.jsonl")
        tree = stub.tree(
            data={"name": "dataset", "path": path, "validation": 0.0001},
            model={"width": 16, "context": 64},
            training={"steps": 200, "checkpoint_every": 5, "evaluate_every": 200},
        )
        (tmp_path / f"{size}.yaml").write_text(yaml.safe_dump(tree))
        script = [sys.executable, SCRIPTS / "train.py", tmp_path / f"{size}.yaml", "--runs"]
        measured = [sys.executable, "-c", MEASURED, *script]
        first, second = tmp_path / f"first{size}", tmp_path / f"second{size}"
        peaks[size] = [subprocess.check_output([*measured, first], text=True)]
        log = second / "small/metrics.jsonl"
        with subprocess.Popen([*script, second]) as process:
            while not (log.exists() and log.read_text().count("\n") > 22):
                assert process.poll() is None
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        peaks[size] += [subprocess.check_output([*measured, second, "--resume"], text=True)]
        assert logged(second / "small") == logged(first / "small")
    # The maps of a text and of its tokens, a byte each, count as memory where they were read.
    for small, large in zip(peaks[4], peaks[64], strict=True):
        assert int(large) / 1024 < int(small) / 1024 + 2 * 64 + 32, peaks
