"""Files that attack their reader are refused by an error that names them, at little cost."""

import json
import os
import pickle
import struct
import time
import zipfile
import zlib
from pathlib import Path

import equinox as eqx
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import tasks
from ide_transformer.pretrained import load_pretrained, save_pretrained
from tests.golden.copies import changed_copy, make_archive
from tests.helpers import GOLDEN


# By name: a function that writes files into a folder, and gives the path that an error has to
# name and a call that reads them; and its case.
ATTACKS = {}
# Nested deeper than any reader of JSON goes.
DEEP = "[" * 100_000


def attack(*cases):
    def register(function):
        ATTACKS.update({f"{function.__name__}: {case}": (function, case) for case in cases})
        return function

    return register


def entry(start, end, dtype="F32", shape=(4,)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


HEADERS = {
    "beyond_the_file": {"a": entry(64, 80)},
    "cut_off": b"{}",
    "quantised": {"a": entry(0, 64, dtype="F8_E4M3", shape=(64,))},
    "too_large_to_count": {"a": entry(0, 64, shape=(2**62, 2**62))},
    "nested": b'{"__metadata__":' + DEEP.encode(),
    "of_bytes": bytes(range(128, 250)),
    "of_6_GB": b"{",
    "of_16_EB": b"{}",
    "overlapping": {"a": entry(0, 16), "b": entry(8, 24)},
    "with_a_hole": {"a": entry(0, 16), "b": entry(48, 64)},
    "backwards": {"a": entry(16, 0)},
    "before_the_file": {"a": entry(-16, 0)},
    "of_fractions": {"a": entry(0.5, 16.5)},
    "of_texts": {"a": entry("0", "16")},
    "of_another_size": {"a": entry(0, 64, shape=(8,))},
    "of_a_shape_below_zero": {"a": entry(0, 64, shape=(-16,))},
    "of_a_nested_shape": {"a": entry(0, 64, shape=([16],))},
    "of_an_unknown_kind": {"a": entry(0, 64, dtype="X9", shape=(16,))},
    "with_more_behind": {"a": entry(0, 16)},
    "without_offsets": {"a": {"dtype": "F32", "shape": [16]}},
    "with_numbers_as_metadata": {"a": entry(0, 64, shape=(16,)), "__metadata__": {"a": 1}},
    "a_list": b"[]",
    "nothing": b"",
    "blank": b" " * 64,
    "half": b'{"a": {"dty',
}


@attack(*HEADERS)
def tensors(folder, case):
    file, header = changed_copy(folder, "llama") / "model.safetensors", HEADERS[case]
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    length = {"of_6_GB": 6 * 10**9, "of_16_EB": 2**64 - 1}.get(case, len(header))
    whole = struct.pack("<Q", length) + header + bytes(64)
    file.write_bytes(file.read_bytes()[:-40] if case == "cut_off" else whole)
    if case == "of_6_GB":
        os.truncate(file, 7 * 10**9)
    return file, lambda: load_pretrained(folder)


class Executed:
    """Touches a file where it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("EXECUTED"),)


# Files of a checkpoint, of an archive and of data, and what reads them.
PICKLED = {
    "config.json": load_pretrained,
    "model.safetensors": load_pretrained,
    "model.safetensors.index.json": load_pretrained,
    "pytorch_model.bin": load_pretrained,
    "tokenizer.json": tasks.PretrainedTokenizer.from_pretrained,
    "x.npz": lambda folder: load_pretrained(folder / "x.npz"),
    "x.npy": tasks.Arrays.build,
}


@attack(*PICKLED)
def pickled(folder, name):
    (changed_copy(folder, "llama") / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Executed()))
    named = folder if name == "pytorch_model.bin" or name == "x.npy" else folder / name
    return named, lambda: PICKLED[name](folder)


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_code_beside_a_checkpoint_is_not_run(family, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    names = {"AutoModel": "evil.Model", "AutoConfig": "someone/else--evil.Config"}
    folder = changed_copy(tmp_path / "copy", family, auto_map=names)
    for place in (tmp_path, folder):
        (place / "evil.py").write_text("import pathlib\npathlib.Path('EXECUTED').touch()\n")
    assert eqx.tree_equal(load_pretrained(folder), load_pretrained(GOLDEN / family))
    assert not Path("EXECUTED").exists()


def test_a_copy_takes_no_file_from_elsewhere(tmp_path):
    """A link in a checkpoint would carry what it leads to into the copy."""
    (tmp_path / "secret").write_text("SECRET")
    folder = changed_copy(tmp_path / "copy", "llama")
    (folder / "notes.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(ide.InputError, match=r"notes\.txt is .*secret, outside"):
        save_pretrained(load_pretrained(folder), tmp_path / "new", like=folder)
    assert not (tmp_path / "new").exists()


def write_index(folder, places):
    file = folder / "model.safetensors.index.json"
    file.write_text(json.dumps({"weight_map": places}))
    return file


@attack("above", "linked", "single_linked", "in_two_files")
def shard(folder, case):
    checkpoint = changed_copy(folder / "checkpoint", "llama")
    single = checkpoint / "model.safetensors"
    outside = single.rename(folder / "outside.safetensors")
    names = {
        "above": ["../outside.safetensors"],
        "linked": ["linked.safetensors"],
        "single_linked": ["model.safetensors"],
        "in_two_files": ["1.safetensors", "2.safetensors"],
    }[case]
    for name in names:
        if case == "in_two_files":
            (checkpoint / name).write_bytes(outside.read_bytes())
        elif "linked" in case:
            (checkpoint / name).symlink_to(outside)
    write_index(checkpoint, {str(i): x for i, x in enumerate(names)})
    return checkpoint, lambda: load_pretrained(checkpoint)


INDICES = {"numbers": {"a": 1}, "a_list": ["a"], "zeros": {"a": "\0"}}


@attack(*INDICES)
def index_of(folder, case):
    (changed_copy(folder, "llama") / "model.safetensors").unlink()
    return write_index(folder, INDICES[case]), lambda: load_pretrained(folder)


CONFIGS = {
    "nested": b'{"a":' * 100_000,
    "digits": b'{"vocab_size": ' + b"1" * 10_000 + b"}",
    "list": b"[1, 2]",
    "bytes": b"\xff\xfe{}",
    "cut": b'{"weight_map": {',
    "long": b'{"a": "' + b"x" * (33 * 2**20) + b'"}',
    "nan": b'{"model_type": "llama", "rms_norm_eps": NaN}',
    "infinite": b'{"model_type": "llama", "initializer_range": 1e999}',
    "key_twice": b'{"model_type": "llama", "model_type": "llama"}',
}


@attack(*CONFIGS)
def config(folder, case):
    file = changed_copy(folder, "llama") / "config.json"
    file.write_bytes(CONFIGS[case])
    return file, lambda: load_pretrained(folder)


_LINEAR = dict(rope_type="linear", factor=2.0, rope_theta=1e4)
SIZES = {
    "layers_in_range": ("llama", dict(num_hidden_layers=900)),
    "vit_image": ("vit", dict(image_size=65532)),
    "llama_angles": ("llama", dict(head_dim=2**24, rope_parameters=_LINEAR)),
}


@attack(*SIZES)
def size(folder, case):
    family, options = SIZES[case]
    changed_copy(folder, family, **options)
    return folder, lambda: load_pretrained(folder)


def zeros_deflated(beginning, length):
    """A stream of some bytes and then zeros, which takes no time for the zeros."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = packer.compress(beginning) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(2**24)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + block * (length // 2**24) + packer.flush()


def npy_header(shape):
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


@attack("that_unpacks_to_8_GB", "of_objects", "with_a_false_shape", "with_nested_options")
def archive(folder, case):
    file = folder / "x.npz"
    _, arrays = make_archive(file, vocabulary=30)
    options = '{"a":' * 100_000 if case == "with_nested_options" else "{}"
    if case == "of_objects":
        arrays["E"] = np.array([{"code": 1}] * 4, object)
    np.savez(file, __config__=np.array(options), **arrays)
    with zipfile.ZipFile(file, "a") as added:
        if case == "that_unpacks_to_8_GB":
            for name in map("{}.npy".format, range(4)):
                added.writestr(name, zeros_deflated(npy_header((2**29,)), 2**31))
                info = added.getinfo(name)
                info.compress_type, info.file_size = zipfile.ZIP_DEFLATED, 128 + 2**31
        if case == "with_a_false_shape":
            added.writestr("x.npy", npy_header((10**12,)) + bytes(64))
    return file, lambda: load_pretrained(file)


@attack("in_its_data", "in_its_directory", "twice")
def archive_damaged(folder, case):
    file = folder / "x.npz"
    make_archive(file, vocabulary=30)
    content = bytearray(file.read_bytes())
    if case == "twice":
        content = content.replace(b"blocks.0.attn.W_K", b"blocks.0.attn.W_V")
    else:
        content[len(content) // 2 if case == "in_its_data" else -200] ^= 255
    file.write_bytes(content)
    return file, lambda: load_pretrained(file)


@attack("that_unpack_to_8_GB", "that_are_too_long")
def images(folder, case):
    file = folder / "train-images-idx3-ubyte.gz"
    length = 10 if case == "that_are_too_long" else 2**13
    start = b"\0\0\x08\x03" + struct.pack(">3I", length, 2**10, 2**10)
    packed = b"\x1f\x8b\x08" + bytes(6) + b"\xff" + zeros_deflated(start, 2**33)
    file.write_bytes(packed + struct.pack("<2I", 0, 0))
    return file, lambda: tasks.idx_folder(folder)


# The library does not raise an exception for these, it panics: at once, or at the first text.
WORDS = {"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}
CHARACTERS = {"type": "Precompiled", "precompiled_charsmap": "////"}
ENDS = [{"SpecialToken": {"id": "</s>", "type_id": 0}}]
TEMPLATE = {"type": "TemplateProcessing", "single": ENDS, "pair": ENDS, "special_tokens": {}}
DOUBLED = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
BYTES = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": False,
}
MARKED = dict(id="a", ids=[0] * 1000, tokens=["a"] * 1000)


def sequence(kind, step, number):
    return {"type": "Sequence", kind: [step] * number}


def words(**parts):
    return json.dumps(WORDS | parts)


TOKENIZERS = {
    "nested": DEEP,
    "that_grows_a_text": words(normalizer=sequence("normalizers", DOUBLED, 30)),
    "that_grows_what_it_writes": words(decoder=sequence("decoders", DOUBLED, 30)),
    "that_grows_bytes": words(pre_tokenizer=sequence("pretokenizers", BYTES, 30)),
    "with_a_long_beginning": words(normalizer={"type": "Prepend", "prepend": "b" * 10**7}),
    "with_many_marks": words(
        post_processor=TEMPLATE
        | {"single": [{"SpecialToken": {"id": "a", "type_id": 0}}] * 1000}
        | {"special_tokens": {"a": MARKED}}
    ),
    "with_a_number_beyond": words(
        model={"type": "BPE", "vocab": {"a": 0, "b": 2**31 + 5}, "merges": []}
    ),
    "that_panics": words(normalizer=CHARACTERS),
    "that_panics_later": words(post_processor=TEMPLATE),
    "of_8_GB": "{",
}


@attack(*TOKENIZERS)
def tokenizer(folder, case):
    file = changed_copy(folder, "llama") / "tokenizer.json"
    file.write_text(TOKENIZERS[case])
    if case == "of_8_GB":
        os.truncate(file, 8 * 2**30)
    return file, lambda: tasks.PretrainedTokenizer.from_pretrained(folder)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (dict(normalizer=sequence("normalizers", DOUBLED, 5)), "a" * 10**6),
        (dict(normalizer=DOUBLED | {"pattern": {"Regex": "(a+)+$"}}), "a" * 40 + "!"),
    ],
)
def test_a_tokenizer_fails_at_a_text_with_a_clear_error(parts, text, tmp_path):
    (tmp_path / "tokenizer.json").write_text(words(**parts))
    tokenizer = tasks.load_tokenizer(tmp_path / "tokenizer.json")
    for read in (tokenizer.encode, lambda text: tokenizer.encode_batch([text], 100)):
        with pytest.raises(ide.InputError, match=r"the tokenizer (makes|fails at this text)"):
            read(text)


@attack('{"characters": "aab"}', '{"checkpoint": 1}')
def saved_tokenizer(folder, content):
    file = folder / "tokenizer.json"
    file.write_text(content)
    return file, lambda: tasks.load_tokenizer(file)


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """Loads a sound checkpoint first, whose cost is not counted."""
    load_pretrained(changed_copy(tmp_path_factory.mktemp("sound"), "llama"))


def peak():
    """The most memory since the last call, in MiB; 0 where the system does not say it."""
    status, reset = (Path("/proc/self") / name for name in ("status", "clear_refs"))
    if not reset.exists():
        return 0
    most = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
    reset.write_text("5")
    return int(most.split()[1]) / 1024


@pytest.mark.parametrize("name", ATTACKS)
def test_it_is_refused_by_name_at_little_cost(name, tmp_path, warm, unchecked, monkeypatch):
    write, case = ATTACKS[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "files").mkdir()
    file, read = write(tmp_path / "files", case)
    peak()
    before, start = peak(), time.process_time()
    with pytest.raises(ide.InputError) as caught:
        read()
    assert not Path("EXECUTED").exists()
    assert time.process_time() - start < 2 and peak() - before < 200
    assert str(file) in str(caught.value)
    assert len(str(caught.value)) < 2000
