"""Texts as files of tokens: what is written, how it is read, and what is refused."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from running import run_here

import ide_transformer as ide
from ide_transformer import InputError, tasks, training
from ide_transformer.tasks import TokenFiles, TokenFolder, token_shards, tokenize_files


SEA = "the sea is wide\nand the night\n"
TEXTS = {"a.txt": SEA * 20, "b.txt": "", "c.md": "∫ wörter ß\n\nwithout end" * 9}


@pytest.fixture
def texts(tmp_path, monkeypatch):
    monkeypatch.setattr(token_shards, "_CHUNK", 64)
    for name, text in TEXTS.items():
        (tmp_path / "texts").mkdir(exist_ok=True)
        (tmp_path / "texts" / name).write_text(text, encoding="utf-8")
    return tmp_path / "texts"


def whole(folder):
    return folder.windows(np.array([0]), len(folder))[0]


@pytest.mark.parametrize("tokenizer", ["characters", "bpe"])
@pytest.mark.parametrize("shard_bytes", [50, 100_000])
def test_tokens_are_those_of_the_texts(texts, tmp_path, tokenizer, shard_bytes):
    folder = tokenize_files(
        [texts],
        tmp_path / "tokens",
        tokenizer=tokenizer,
        vocabulary=300,
        shard_bytes=shard_bytes,
    )
    end = [folder.index.end]
    encoded = [folder.tokenizer.encode(TEXTS[name]) for name in ("a.txt", "c.md")]
    expected = np.concatenate([encoded[0], end, encoded[1], end])
    assert (whole(folder) == expected).all()
    size = sum(len(text.encode()) for text in TEXTS.values())
    assert folder.index.documents == 2
    assert len(folder.index.shards) == -(-size // shard_bytes)
    starts = np.random.default_rng(0).integers(0, len(folder) - 90, 20)
    assert (folder.windows(starts, 90) == expected[starts[:, None] + np.arange(90)]).all()
    folder.verify()
    content = b"".join(f.read_bytes() for f in sorted(folder.path.glob("*.bin")))
    assert content == expected.astype("<u2").tobytes()


def test_a_line_between_documents(texts, tmp_path):
    (texts / "a.txt").write_text("one\n---\n---\ntwo ---\nthree\n---\n", encoding="utf-8")
    folder = tokenize_files([texts / "a.txt"], tmp_path / "tokens", between="---")
    text = folder.tokenizer.decode(whole(folder))
    assert text == "one\n\x03two ---\nthree\n\x03" and folder.index.documents == 2


def tokens_of(file, folder, shard_bytes):
    tokenized = tokenize_files([file], folder, between="==", shard_bytes=shard_bytes)
    return whole(tokenized).tolist(), tokenized.index.documents


@pytest.mark.parametrize(
    "text", ["ab\n==\ncd\n==\n", "==\n==\r\na==\n==", "\n==\r\nä\r\n==\n===\n==\n\nb"]
)
def test_tokens_do_not_depend_on_the_shards(tmp_path, text):
    file = tmp_path / "a.txt"
    file.write_bytes(text.encode())
    expected = tokens_of(file, tmp_path / "whole", 1000)
    for shard_bytes in range(1, len(text) + 2):
        assert tokens_of(file, tmp_path / str(shard_bytes), shard_bytes) == expected


@pytest.mark.heavy
@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["", "==", "a", "ä==", "==b"])),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.integers(1, 40),
)
def test_tokens_of_any_text_do_not_depend_on_the_shards(lines, newline, ended, shard_bytes):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = newline.join(["a", *lines]) + newline * ended
        (folder / "a.txt").write_bytes(text.encode())
        expected = tokens_of(folder / "a.txt", folder / "whole", 1000)
        assert tokens_of(folder / "a.txt", folder / "parts", shard_bytes) == expected


def test_a_line_without_end_is_cut_between_characters(texts, tmp_path):
    (texts / "a.txt").write_text("äöü∫" * 200, encoding="utf-8")
    folder = tokenize_files([texts / "a.txt"], tmp_path / "tokens", shard_bytes=333)
    assert folder.tokenizer.decode(whole(folder)) == "äöü∫" * 200 + "\x03"


def test_tokenising_goes_on_where_it_was_stopped(texts, tmp_path):
    def stop(done, total):
        if done > 500:
            raise KeyboardInterrupt

    options = dict(tokenizer="bpe", vocabulary=300, shard_bytes=100)
    with pytest.raises(KeyboardInterrupt):
        tokenize_files([texts], tmp_path / "tokens", on_progress=stop, **options)
    with pytest.raises(InputError, match=r"it has no tokens\.json"):
        TokenFolder(tmp_path / "tokens")
    kept = {f: f.stat().st_mtime_ns for f in (tmp_path / "tokens").glob("*.bin")}
    assert len(kept) >= 4
    seen = []
    folder = tokenize_files(
        [texts], tmp_path / "tokens", on_progress=lambda *x: seen.append(x), **options
    )
    assert seen[0][0] >= 400 and seen[-1][0] >= 0.9 * seen[-1][1]
    assert all(f.stat().st_mtime_ns == at for f, at in kept.items())
    other = tokenize_files([texts], tmp_path / "other", **options)
    assert (whole(folder) == whole(other)).all()
    assert folder.fingerprint() == other.fingerprint()
    again = tokenize_files([texts], tmp_path / "tokens", on_progress=stop, **options)
    assert again.fingerprint() == folder.fingerprint()
    with pytest.raises(InputError, match="begun with other between; give what"):
        tokenize_files([texts], tmp_path / "tokens", between="x", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"texts": ["nowhere"]}, "nowhere: there is no such file"),
        ({"texts": []}, "no files: the texts are empty"),
        ({"between": "a\nb"}, "give one line"),
        ({"processes": 0}, "processes=0"),
        ({"tokenizer": "nowhere"}, "nowhere"),
    ],
)
def test_wrong_options(texts, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        tokenize_files(**{"texts": [texts], "output": tmp_path / "tokens", **options})


def test_texts_that_are_none(texts, tmp_path):
    (texts / "d.txt").write_bytes(b"good\n" * 40 + b"\xff\n")
    with pytest.raises(InputError, match=r"d\.txt: invalid start byte at byte 200;"):
        tokenize_files([texts], tmp_path / "tokens")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.doc").touch()
    with pytest.raises(InputError, match=r"other files, such as thesis\.doc"):
        tokenize_files([texts / "a.txt"], tmp_path / "full")


@pytest.fixture
def task(texts, tmp_path):
    tokenize_files([texts], tmp_path / "tokens", shard_bytes=200)
    return TokenFiles(tmp_path / "tokens", 8, validation=0.2, test=0.1)


def test_a_pass_takes_each_window_once(task):
    tokens, number = whole(task.folder), task.windows
    size = 5
    batches = [task.batch(step, size, seed=1) for step in range(2 * number // size + 1)]
    windows = np.concatenate([np.c_[b.inputs, b.targets[:, -1:]] for b in batches])
    for epoch in range(2):
        begin = np.random.default_rng([1, epoch]).integers(8)
        ends = begin + 8 * number + 1
        assert ends <= 0.7 * len(tokens) < ends + 16
        expected = np.lib.stride_tricks.sliding_window_view(tokens[begin:ends], 9)[::8]
        found = windows[epoch * number : (epoch + 1) * number]
        assert sorted(map(tuple, found)) == sorted(map(tuple, expected))
    for other in (task.batch(0, size, 2), task.batch(1, size, 1)):
        assert (other.inputs != batches[0].inputs).any()


def test_rows_are_parts_of_a_batch(task):
    batch = task.batch(3, 6, 0)
    parts = [task.part_of_batch(3, 6, 0, slice(first, first + 2)) for first in (0, 2, 4)]
    default = tasks.AbstractTask.part_of_batch(task, 3, 6, 0, slice(2, 4))
    assert (np.concatenate([x.inputs for x in parts]) == batch.inputs).all()
    assert (default.targets == parts[1].targets).all()


def test_held_out_parts_are_read_in_order(task):
    tokens, parts = whole(task.folder), {}
    for part in task.parts:
        parts[part] = np.concatenate([b.targets.ravel() for b in task.held_out(4, part=part)])
    low, high = (int(len(tokens) * x) for x in (0.7, 0.8))
    assert (parts["test"] == tokens[low + 1 :][: len(parts["test"])]).all()
    assert (parts["validation"] == tokens[high + 1 :][: len(parts["validation"])]).all()
    assert high - 8 <= low + len(parts["test"]) < high
    assert len(list(task.held_out(1, samples=3))) in (3, 4, 5)


def test_contexts_that_do_not_fit(task):
    with pytest.raises(InputError, match="longer than the test text"):
        task.on(ide.Mesh(tokens=100))
    with pytest.raises(InputError, match=r"validation=0\.5 and data\.test=0\.5 leave nothing"):
        TokenFiles(task.folder.path, 8, 0.5, 0.5)


def test_a_run_on_token_files(texts, tmp_path, capsys):
    tokens = tmp_path / "tokens"
    said = run_here(capsys, "tokenize_text.py", texts, "--output", tokens, "--verify")
    assert "2 documents" in said
    tree = {
        "data": {"name": "token_files", "path": str(tokens), "validation": 0.2},
        "model": {"width": 8, "heads": 1, "depth": 1, "context": 8},
        "optimizer": {"warmup": 1},
        "training": {"steps": 2, "batch_size": 4, "sample": 5},
    }
    run = training.train(training.Config.model_validate(tree), runs=tmp_path / "runs")
    assert len(run.sample.read_text()) == 6
    assert run.load_tokenizer().vocabulary == TokenFolder(tokens).index.vocabulary
    assert json.loads(run.summary.read_text())["validation_loss"] > 0
