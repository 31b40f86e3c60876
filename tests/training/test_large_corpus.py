"""Texts larger than what a process may hold: the memory that runs on them take. The figures for
300 MB are in docs/how-to/large-corpus.md."""

import subprocess
import sys

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
def test_memory_does_not_grow_with_the_text(tmp_path):
    """The first run on each text makes the tokens; another finds those of the large one, and
    sees the same."""

    def peak(size, runs):
        script = [SCRIPTS / "train.py", tmp_path / f"{size}.yaml", "--runs", tmp_path / runs]
        command = [sys.executable, "-c", MEASURED, sys.executable, *script]
        return int(subprocess.check_output(command, text=True)) / 1024

    for size in (2, 32):
        path = write_corpus(tmp_path, f"{size}", documents(shakespeare(), size * 2**20))
        tree = stub.tree(
            name=f"of_{size}",
            data={"name": "dataset", "path": str(path), "validation": 0.0001},
            model={"operators": ["feed_forward"], "width": 16, "context": 64},
            training={"steps": 60, "checkpoint_every": 60, "evaluate_every": 60},
        )
        (tmp_path / f"{size}.yaml").write_text(yaml.safe_dump(tree))
    small, large, again = peak(2, "runs"), peak(32, "runs"), peak(32, "again")
    assert logged(tmp_path / "again/of_32") == logged(tmp_path / "runs/of_32")
    # The maps of a text and of its tokens, a byte each, count as memory where they were read.
    assert max(large, again) < small + 2 * 32 + 32, (small, large, again)
