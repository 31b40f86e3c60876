"""Folders of texts and of tokens that are not what they seem."""

import json
import os

import pytest

from ide_transformer import InputError
from ide_transformer.tasks import TokenFiles, read_text, tokenize_files


@pytest.fixture
def texts(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("the sea is wide\nand the night\n" * 20)
    return folder


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("nowhere")])
def test_a_pipe_among_texts(texts, tmp_path, make):
    """It was left out without a word, or read without end."""
    pipe = texts / "b.txt"
    make(pipe)
    for given in ([texts], [texts / "a.txt", pipe]):
        with pytest.raises(InputError, match=r"b\.txt(: there is| is no file but a pipe)"):
            tokenize_files(given, tmp_path / "tokens")
    with pytest.raises(InputError, match=r"b\.txt is no file but a pipe, a device"):
        read_text(texts)
    assert not (tmp_path / "tokens").exists()


@pytest.mark.parametrize(("key", "value"), [("end", 500), ("end", 3), ("vocabulary", 500)])
def test_an_index_that_does_not_belong_to_the_tokenizer(texts, tmp_path, key, value):
    """A text is written with it at the end of training."""
    file = tokenize_files([texts], tmp_path / "tokens").path / "tokens.json"
    TokenFiles(file.parent, 8)
    index = json.loads(file.read_text())
    file.write_text(json.dumps({**index, key: value}))
    with pytest.raises(InputError, match=rf"tokens\.json: vocabulary=.*{value}.*, but "):
        TokenFiles(file.parent, 8)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_damaged_plan(texts, tmp_path, content):
    tokenize_files([texts], tmp_path / "tokens")
    plan = tmp_path / "tokens/plan.json"
    plan.write_bytes(content)
    with pytest.raises(InputError, match=r"plan\.json .* Delete the folder, or give a new one"):
        tokenize_files([texts], tmp_path / "tokens")
    assert plan.read_bytes() == content
