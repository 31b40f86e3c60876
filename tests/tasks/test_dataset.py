"""Texts of any size by the library datasets: what is read, and what is refused."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tokenizers as tk

from ide_transformer import InputError, tasks
from ide_transformer.tasks import Dataset, tokenizing


SEA = "the sea is wide\nand the night\n"
TEXTS = [SEA * 3, "", "∫ wörter ß\r\n\nwithout end" * 9, SEA]


@pytest.fixture(autouse=True)
def small_pieces(tmp_path, monkeypatch):
    monkeypatch.setenv("IDE_TRANSFORMER_CACHE", str(tmp_path / "cache"))
    for name in ("_PIECE", "_BATCH", "_BLOCK"):
        monkeypatch.setattr(tokenizing, name, 200)


def written(path, texts=TEXTS, column="text"):
    """The texts in a file of the kind that its name says."""
    if path.suffix == ".jsonl":
        lines = [json.dumps({"id": n, column: text}) for n, text in enumerate(texts)]
        path.write_text("\n".join(lines), encoding="utf-8")
    elif path.suffix == ".parquet":
        pq.write_table(pa.table({"id": range(len(texts)), column: texts}), path)
    else:
        path.mkdir()
        for number, text in enumerate(texts):
            (path / f"{number}.txt").write_bytes(text.encode())
    return path


def whole(task):
    return task.tokens.windows(np.array([0]), len(task.tokens))[0]


@pytest.mark.parametrize(
    ("name", "tokenizer"), [("a.jsonl", "characters"), ("a.parquet", "bpe"), ("texts", "bpe")]
)
def test_tokens_are_those_of_the_texts(tmp_path, name, tokenizer):
    task = Dataset(written(tmp_path / name), 8, tokenizer, vocabulary=300)
    tokens = whole(task)
    parts = [np.append(task.tokenizer.encode(text), task.end) for text in TEXTS if text]
    assert (tokens == np.concatenate(parts)).all()
    assert task.token_bytes[tokens].sum() == len("".join(TEXTS).encode())
    starts = np.random.default_rng(0).integers(0, len(tokens) - 90, 20)
    assert (task.tokens.windows(starts, 90) == tokens[starts[:, None] + np.arange(90)]).all()
    assert len(task.tokens._parts) > 1 and task.sizes["vocabulary"] > task.end


def test_tables_with_missing_texts_in_another_column(tmp_path):
    file = written(tmp_path / "a.jsonl", [None, "abc", "", "de"], "body")
    task = Dataset(file, 1, column="body", validation=0.5)
    assert task.tokenizer.decode(whole(task)) == "abc\x03de\x03"


def test_a_line_between_documents(tmp_path):
    (tmp_path / "a.txt").write_text("one\n---\n---\ntwo ---\näöü∫\n---\n", encoding="utf-8")
    task = Dataset(tmp_path / "a.txt", 1, between="---", validation=0.5)
    assert task.tokenizer.decode(whole(task)) == "one\n\x03two ---\näöü∫\n\x03"


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "bad.txt").write_bytes(b"good\n" * 40 + b"\xff\n")
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{"text": \n')
    os.mkfifo(tmp_path / "pipe.txt")
    for name, said in (
        ("bad.txt", r"bad\.txt: invalid start byte at the end of b'.*good\\n\\xff'; the text"),
        ("bad.jsonl", r"bad\.jsonl: cannot be read"),
        ("pipe.txt", r"pipe\.txt is not a file but a pipe"),
    ):
        with pytest.raises(InputError, match=said):
            Dataset(tmp_path / name, 8)
    (tmp_path / "pipe.txt").unlink()
    with pytest.raises(InputError, match="files of the kinds json, text; give"):
        Dataset(tmp_path, 8)


def test_a_pass_takes_each_window_once(tmp_path):
    task, size = Dataset(written(tmp_path / "a.parquet"), 8, validation=0.2, test=0.1), 5
    tokens = whole(task)
    number = task.bounds["training"][1] // 8 - 1
    batches = [task.batch(step, size, seed=1) for step in range(2 * number // size + 1)]
    windows = np.concatenate([np.c_[b.inputs, b.targets[:, -1:]] for b in batches])
    for epoch in range(2):
        begin = np.random.default_rng([1, epoch]).integers(8)
        ends = begin + 8 * number + 1
        assert ends <= 0.7 * len(tokens) < ends + 16
        every = np.lib.stride_tricks.sliding_window_view(tokens[begin:ends], 9)[::8]
        found = windows[epoch * number : (epoch + 1) * number]
        assert sorted(map(tuple, found)) == sorted(map(tuple, every))


def test_a_saved_tokenizer_is_named_by_its_file(tmp_path):
    """A file of tokens has room for the greatest."""
    words = {"a": 0, "b": 70000, "<|endoftext|>": 2, "[UNK]": 3}
    tokenizer = tasks.PretrainedTokenizer(tk.Tokenizer(tk.models.WordLevel(words, "[UNK]")))
    tokenizer.save(tmp_path / "words.json")
    path = written(tmp_path / "a.jsonl", ["b"] * 9)
    task = Dataset(path, 1, str(tmp_path / "words.json"))
    assert task.windows_at(np.array([0, 3])).tolist() == [[70000, 2], [2, 70000]]


MAIN = """
import sys
from ide_transformer.tasks import tokenizing
tokenizing._PIECE = 2**20
print(tokenizing.tokenized(*sys.argv[1:3], 300, 2)[0].fingerprint())
"""


@pytest.mark.heavy
def test_killed_processes_end_with_their_parent_and_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizing, "_PIECE", 2**30)
    texts = [f"{n} {SEA}" * 60 for n in range(3000)]
    file = written(tmp_path / "a.jsonl", texts)
    command = [sys.executable, "-c", MAIN, file, "bpe"]
    running = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while len(kept(tmp_path)) < 2 or len(workers := children(running.pid)) < 2:
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    while any(map(alive, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    before = kept(tmp_path)
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    after = kept(tmp_path)
    assert len(after) > len(before) and before.items() <= after.items()
    assert said.strip() == Dataset(file, 8, "bpe", vocabulary=300).fingerprint()


def kept(there):
    """The files of tokens that are complete, and when they were written."""
    found = (there / "cache/datasets").rglob("cache-*.arrow")
    return {file: file.stat().st_mtime_ns for file in found}


def children(pid):
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True)
    return [int(x) for x in found.stdout.split()]


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
