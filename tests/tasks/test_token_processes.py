"""Several processes that write one folder of tokens, and are killed."""

import os
import signal
import subprocess
import sys
import time

import pytest
from helpers import SCRIPTS

from ide_transformer.tasks import TokenFolder, tokenize_files


TEXT = "the sea is wide\nand the night\n"


@pytest.mark.heavy
def test_processes_give_the_same_tokens_and_end_with_the_script(tmp_path):
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(60):
        (texts / f"{number}.txt").write_text(TEXT * 4000, encoding="utf-8")
    command = [sys.executable, SCRIPTS / "tokenize_text.py", texts, "--tokenizer", "bpe"]
    command += ["--processes", "2", "--shard-bytes", "100000", "--output", tmp_path / "tokens"]
    # Killed when its workers have just begun, and when they have written some.
    for written in (0, 3):
        running = subprocess.Popen(command)
        deadline = time.monotonic() + 300
        while len(workers := children(running.pid)) < 3 or shards(tmp_path) < written:
            assert running.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
        while any(map(alive, workers)):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert not (tmp_path / "tokens/tokens.json").exists()
    subprocess.run(command, check=True)
    one = tokenize_files(
        [texts], tmp_path / "one", tokenizer="bpe", vocabulary=512, shard_bytes=100_000
    )
    assert TokenFolder(tmp_path / "tokens").fingerprint() == one.fingerprint()


def shards(there):
    return len(list((there / "tokens").glob("*.bin")))


def children(pid):
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True)
    return [int(x) for x in found.stdout.split()]


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
