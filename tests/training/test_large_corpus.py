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
    """The first run on each text makes the tokens. Another finds those of the large one, is
    killed and goes on."""

    def script(size, runs, *options):
        config = tmp_path / f"{size}.yaml"
        return [sys.executable, SCRIPTS / "train.py", config, "--runs", runs, *options]

    def peak(*given):
        command = [sys.executable, "-c", MEASURED, *script(*given)]
        return int(subprocess.check_output(command, text=True)) / 1024

    peaks, first, second = {}, tmp_path / "first", tmp_path / "second"
    for size in (2, 32):
        path = write_corpus(tmp_path, f"{size}", documents(shakespeare(), size * 2**20))
        tree = stub.tree(
            data={"name": "dataset", "path": str(path), "validation": 0.0001},
            model={"operators": ["feed_forward"], "width": 16, "context": 64},
            training={"steps": 60, "checkpoint_every": 10, "evaluate_every": 60},
        )
        (tmp_path / f"{size}.yaml").write_text(yaml.safe_dump(tree))
        peaks[size] = peak(size, first / f"{size}")
    log = second / "small/metrics.jsonl"
    with subprocess.Popen(script(32, second)) as process:
        while not (log.exists() and log.read_text().count("\n") > 22):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    resumed = peak(32, second, "--resume")
    assert logged(second / "small") == logged(first / "32/small")
    # The maps of a text and of its tokens, a byte each, count as memory where they were read.
    assert max(peaks[32], resumed) < peaks[2] + 2 * 32 + 32, (peaks, resumed)
