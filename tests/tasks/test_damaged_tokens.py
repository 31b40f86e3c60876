"""Damaged folders of tokens: nothing of them is trained on."""

import json

import numpy as np
import pytest
from running import run_here

from ide_transformer import InputError, packages, training
from ide_transformer.tasks import TokenFiles, TokenFolder, tokenize_files


SEA = "the sea is wide\nand the night\n"


@pytest.fixture
def texts(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text(SEA * 40)
    return tmp_path / "texts"


def whole(folder):
    return folder.windows(np.array([0]), len(folder))[0]


def damage_index(folder):
    (folder / "tokens.json").write_text("{}")


def damage_size(folder):
    (folder / "00000.bin").write_bytes(b"123")


def damage_tokenizer(folder):
    (folder / "tokenizer.json").write_text("{}")


def remove_file(folder):
    (folder / "00000.bin").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_index, r"tokens\.json is damaged"),
        (damage_size, r"00000\.bin has 3 bytes; tokens\.json says \d+"),
        (damage_tokenizer, "was changed since the tokens were made"),
        (remove_file, r"00000\.bin is missing"),
    ],
)
def test_damaged_folders(texts, tmp_path, damage, message):
    tokenize_files([texts], tmp_path / "tokens")
    damage(tmp_path / "tokens")
    with pytest.raises(InputError, match=message):
        TokenFiles(tmp_path / "tokens", 8)


def test_damaged_tokens_are_found_by_their_checksum(texts, tmp_path):
    folder = tokenize_files([texts], tmp_path / "tokens")
    file = tmp_path / "tokens" / "00000.bin"
    file.write_bytes(b"\x00" * file.stat().st_size)
    with pytest.raises(InputError, match=r"00000\.bin is damaged"):
        folder.verify()
    # Also one that was good when it was read before.
    with pytest.raises(InputError, match=r"00000\.bin is damaged"):
        whole(folder)


def test_a_file_is_read_for_its_checksum_once(texts, tmp_path, monkeypatch):
    folder = tokenize_files([texts], tmp_path / "tokens", shard_bytes=200)
    read = []
    checksum = packages.checksum
    monkeypatch.setattr(packages, "checksum", lambda x: (read.append(x.name), checksum(x))[1])
    for _ in range(2):
        folder.windows(np.array([0]), 9)
    assert read == ["00000.bin"]
    whole(folder)
    assert sorted(read) == [shard.file for shard in folder.index.shards]


def test_a_token_that_the_vocabulary_lacks_is_named(texts, tmp_path):
    path = tokenize_files([texts], tmp_path / "tokens").path
    tokens = np.fromfile(path / "00000.bin", "<u2")
    tokens[20] = 65_280
    tokens.tofile(path / "00000.bin")
    index = json.loads((path / "tokens.json").read_text())
    index["shards"][0]["sha256"] = packages.checksum(path / "00000.bin")
    (path / "tokens.json").write_text(json.dumps(index))
    TokenFolder(path).windows(np.array([0]), 20)
    with pytest.raises(InputError, match=r"00000\.bin has the token 65280, and the vocabulary"):
        TokenFolder(path).windows(np.array([0]), 21)
    (path / "tokens.json").write_text(json.dumps({**index, "vocabulary": 70_000}))
    with pytest.raises(InputError, match=r"vocabulary=70000 .*json has \d+ tokens"):
        TokenFiles(path, 8)


def test_a_run_ends_where_its_files_are_damaged(texts, tmp_path, capsys):
    tokens = tokenize_files([texts], tmp_path / "tokens").path
    tree = {
        "data": {"name": "token_files", "path": str(tokens), "validation": 0.2},
        "model": {"width": 8, "heads": 1, "depth": 1, "context": 8},
        "optimizer": {"warmup": 1},
        "training": {"steps": 2, "batch_size": 4, "sample": 0},
    }
    config = training.Config.model_validate(tree)
    run = training.train(config, runs=tmp_path / "runs")
    damaged = bytearray((tokens / "00000.bin").read_bytes())
    damaged[1::2] = b"\xff" * len(damaged[1::2])
    (tokens / "00000.bin").write_bytes(damaged)
    before = {x: x.read_bytes() for x in run.path.rglob("*") if x.is_file()}
    for command in (("train.py", run.path, "--resume"), ("evaluate.py", run.path)):
        assert "00000.bin is damaged" in run_here(capsys, *command, expected=2)
    assert {x: x.read_bytes() for x in run.path.rglob("*") if x.is_file()} == before
    with pytest.raises(InputError, match="is damaged"):
        training.train(config, runs=tmp_path / "others")
    assert not (tmp_path / "others").exists()
