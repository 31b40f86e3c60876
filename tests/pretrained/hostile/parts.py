"""ONNX files, tokenizers and texts that attack their reader."""

import json
import os

from golden.copies import changed_copy
from pretrained.hostile.registry import DEEP, attack

from ide_transformer import tasks
from ide_transformer.pretrained import load_onnx


def varint(number):
    return (
        bytes([number & 127 | 128]) + varint(number >> 7) if number > 127 else bytes([number])
    )


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def external(location, **more):
    pairs = {"location": location, **more}
    entries = b"".join(
        field(13, field(1, key.encode()) + field(2, str(value).encode()))
        for key, value in pairs.items()
    )
    shape_type_name = b"\x08\x04\x10\x01" + field(8, b"w")
    return field(7, field(5, shape_type_name + entries + b"\x70\x01"))


def nested_graphs():
    content = b""
    for _ in range(5_000):
        content = field(1, field(5, field(6, content)))
    return field(7, content)


ONNX = {
    "of_bytes": lambda: bytes(range(256)),
    "of_many_nodes": lambda: field(7, field(1, b"") * (4 * 2**20)),
    "of_many_attributes": lambda: field(7, field(1, field(5, b"") * (4 * 2**20))),
    "nested": nested_graphs,
    "with_a_false_shape": lambda: field(
        7,
        field(5, b"\x08" + varint(10**12) + b"\x10\x01" + field(8, b"w") + field(9, bytes(8))),
    ),
    "of_8_GB": lambda: b"\x08",
    "with_data_above": lambda: external("../outside.data"),
    "with_absolute_data": lambda: external("/etc/hostname"),
    "with_data_beyond": lambda: external("own.data", offset=2**40, length=2**40),
    "with_linked_data": lambda: external("linked.data"),
}


@attack(*ONNX)
def onnx(folder, case):
    changed_copy(folder, "vit")
    (folder.parent / "outside.data").write_bytes(bytes(16))
    (folder / "own.data").write_bytes(bytes(16))
    (folder / "linked.data").symlink_to(folder.parent / "outside.data")
    file = folder / "model.onnx"
    file.write_bytes(ONNX[case]())
    if case == "of_8_GB":
        os.truncate(file, 8 * 2**30)
    return file, lambda: load_onnx(file)


# The library does not raise an exception for these, it panics: at once, or at the first text.
WORDS = {"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}
CHARACTERS = {"type": "Precompiled", "precompiled_charsmap": "////"}
ENDS = [{"SpecialToken": {"id": "</s>", "type_id": 0}}]
TEMPLATE = {"type": "TemplateProcessing", "single": ENDS, "pair": ENDS, "special_tokens": {}}
TOKENIZERS = {
    "nested": DEEP,
    "that_panics": json.dumps(WORDS | {"normalizer": CHARACTERS}),
    "that_panics_later": json.dumps(WORDS | {"post_processor": TEMPLATE}),
    "of_8_GB": "{",
}


@attack(*TOKENIZERS)
def tokenizer(folder, case):
    file = changed_copy(folder, "llama") / "tokenizer.json"
    file.write_text(TOKENIZERS[case])
    if case == "of_8_GB":
        os.truncate(file, 8 * 2**30)
    return file, lambda: tasks.PretrainedTokenizer.from_pretrained(folder)


@attack(
    '{"characters": 5}', '{"characters": "ba"}', '{"characters": "aab"}', '{"checkpoint": 1}'
)
def saved_tokenizer(folder, content):
    file = folder / "tokenizer.json"
    file.write_text(content)
    return file, lambda: tasks.load_tokenizer(file)


@attack()
def text(folder):
    (folder / "plays.txt").mkdir()
    return folder, lambda: tasks.read_text(folder)
