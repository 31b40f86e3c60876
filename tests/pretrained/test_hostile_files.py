"""Damaged files and files that attack their reader are refused by an error with their name."""

import json
import pickle
import struct
from pathlib import Path

import equinox as eqx
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import tasks
from ide_transformer.pretrained import load_pretrained, save_pretrained
from tests.golden.copies import changed_copy, make_archive
from tests.helpers import GOLDEN


pytestmark = pytest.mark.usefixtures("unchecked")
# Nested deeper than any reader of JSON goes.
NESTED = b'{"a":' * 100_000


class Executed:
    """Touches a file where it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("EXECUTED"),)


PICKLE = pickle.dumps(Executed())


def refused(file, read):
    """Whether `read` raises an error that names `file`, and runs no code."""
    with pytest.raises(ide.InputError) as caught:
        read()
    assert str(file) in str(caught.value)
    assert not Path("EXECUTED").exists()


def with_header(**tensor):
    header = json.dumps({"a": {"dtype": "F32", "shape": [4]} | tensor}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(64)


# Contents of a checkpoint's files.
CONTENTS = [
    ("model.safetensors", "beyond_the_file", with_header(data_offsets=[64, 80])),
    ("model.safetensors", "empty", b""),
    ("model.safetensors.index.json", "of_numbers", b'{"weight_map": {"a": 1}}'),
    ("config.json", "nested", NESTED),
    ("config.json", "not_text", b"\xff\xfe{}"),
    ("config.json", "pickled", PICKLE),
]


@pytest.mark.parametrize(
    ("name", "content"), [pytest.param(x, z, id=f"{x}-{y}") for x, y, z in CONTENTS]
)
def test_a_file_of_a_checkpoint(name, content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = changed_copy(tmp_path / "copy", "llama")
    if "index" in name:
        (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(content)
    refused(folder / name, lambda: load_pretrained(folder))


@pytest.mark.parametrize("fault", ["of_objects", "damaged"])
def test_an_archive(fault, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "x.npz"
    _, arrays = make_archive(file, vocabulary=30)
    content = bytearray(file.read_bytes())
    match fault:
        case "of_objects":
            arrays["E"] = np.array([Executed()], object)
            np.savez(file, __config__=np.array("{}"), **arrays)
        case "damaged":
            content[len(content) // 2] ^= 255
            file.write_bytes(content)
    refused(file, lambda: load_pretrained(file))


# The library does not raise an exception for the last ones, it panics: at once, or at a text.
WORDS = {"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}
CHARACTERS = {"type": "Precompiled", "precompiled_charsmap": "////"}
ENDS = [{"SpecialToken": {"id": "</s>", "type_id": 0}}]
TEMPLATE = {"type": "TemplateProcessing", "single": ENDS, "pair": ENDS, "special_tokens": {}}
TOKENIZERS = {
    "pickled": PICKLE,
    "of_another_kind": b'{"checkpoint": 1}',
    "panics": json.dumps(WORDS | {"normalizer": CHARACTERS}).encode(),
    "panics_later": json.dumps(WORDS | {"post_processor": TEMPLATE}).encode(),
}


@pytest.mark.parametrize("fault", TOKENIZERS)
def test_a_tokenizer(fault, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(TOKENIZERS[fault])
    read = tasks.PretrainedTokenizer.from_pretrained
    refused(tmp_path / "tokenizer.json", lambda: read(tmp_path))


@pytest.mark.parametrize("names", [["../outside"], ["linked"], ["1", "2"]])
def test_shards(names, tmp_path, monkeypatch):
    """A tensor of a file elsewhere, and a tensor that is in two files."""
    monkeypatch.chdir(tmp_path)
    checkpoint = changed_copy(tmp_path / "checkpoint", "llama")
    outside = (checkpoint / "model.safetensors").rename(tmp_path / "outside.safetensors")
    names = [f"{name}.safetensors" for name in names]
    (checkpoint / "linked.safetensors").symlink_to(outside)
    for name in ("1", "2"):
        (checkpoint / f"{name}.safetensors").write_bytes(outside.read_bytes())
    index = {"weight_map": {str(i): x for i, x in enumerate(names)}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(checkpoint, lambda: load_pretrained(checkpoint))


def test_a_copy_takes_no_file_from_elsewhere(tmp_path):
    """A link in a checkpoint would carry what it leads to into the copy."""
    (tmp_path / "secret").write_text("SECRET")
    folder = changed_copy(tmp_path / "copy", "llama")
    (folder / "notes.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(ide.InputError, match=r"notes\.txt .*secret"):
        save_pretrained(load_pretrained(folder), tmp_path / "new", like=folder)
    assert not (tmp_path / "new").exists()


def test_code_beside_a_checkpoint_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    names = {"AutoModel": "evil.Model", "AutoConfig": "someone/else--evil.Config"}
    folder = changed_copy(tmp_path / "copy", "llama", auto_map=names)
    for place in (tmp_path, folder):
        (place / "evil.py").write_text("import pathlib\npathlib.Path('EXECUTED').touch()\n")
    assert eqx.tree_equal(load_pretrained(folder), load_pretrained(GOLDEN / "llama"))
    assert not Path("EXECUTED").exists()
