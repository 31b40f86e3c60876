"""Folders of checkpoints that attack their reader."""

import json
import os
import struct

from golden.copies import changed_copy
from pretrained.hostile.registry import DEEP, attack

from ide_transformer.pretrained import load_pretrained


def entry(start, end, dtype="F32", shape=(4,)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


HEADERS = {
    "negative": {"a": entry(-16, 0)},
    "overlapping": {"a": entry(0, 16), "b": entry(8, 24)},
    "beyond_the_file": {"a": entry(64, 80)},
    "of_another_type": {"a": entry(0, 16, dtype="F64")},
    "with_a_hole": {"a": entry(0, 16), "b": entry(32, 64, shape=(8,))},
    "too_large_to_count": {"a": entry(0, 64, shape=(2**62, 2**62))},
}


def write_safetensors(file, header, length=None):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    length = len(header) if length is None else length
    file.write_bytes(struct.pack("<Q", length) + header + bytes(64))


@attack(*HEADERS)
def tensors(folder, case):
    file = changed_copy(folder, "llama") / "model.safetensors"
    write_safetensors(file, HEADERS[case])
    return file, lambda: load_pretrained(folder)


@attack("of_6_GB", "nested", "of_bytes")
def header(folder, case):
    file = changed_copy(folder, "llama") / "model.safetensors"
    header = {
        "nested": b'{"__metadata__":' + DEEP.encode(),
        "of_bytes": bytes(range(128, 250)),
        "of_6_GB": b"{",
    }[case]
    write_safetensors(file, header, 6 * 10**9 if case == "of_6_GB" else None)
    if case == "of_6_GB":
        os.truncate(file, 7 * 10**9)
    return file, lambda: load_pretrained(folder)


@attack("above", "absolute", "linked", "single_linked", "in_two_files")
def shard(folder, case):
    checkpoint = changed_copy(folder / "checkpoint", "llama")
    single = checkpoint / "model.safetensors"
    outside = single.rename(folder / "outside.safetensors")
    names = {
        "above": ["../outside.safetensors"],
        "absolute": [str(outside)],
        "linked": ["linked.safetensors"],
        "single_linked": ["model.safetensors"],
        "in_two_files": ["1.safetensors", "2.safetensors"],
    }[case]
    for name in names:
        if case == "in_two_files":
            (checkpoint / name).write_bytes(outside.read_bytes())
        elif "linked" in case:
            (checkpoint / name).symlink_to(outside)
    index = checkpoint / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {str(i): x for i, x in enumerate(names)}}))
    return checkpoint, lambda: load_pretrained(checkpoint)


JSON = {
    "nested": '{"a":' * 100_000,
    "digits": '{"vocab_size": ' + "1" * 10_000 + "}",
    "list": "[1, 2]",
    "bytes": b"\xff\xfe{}",
    "cut": '{"weight_map": {',
    "long": b'{"a": "' + b"x" * (33 * 2**20) + b'"}',
}


# In the place of the brace that ends the options of a sound file.
ENDINGS = {
    "nan": ', "rms_norm_eps": NaN}',
    "infinite": ', "initializer_range": 1e999}',
    "key_twice": ', "hidden_act": "silu"}',
}


@attack(*JSON, *ENDINGS)
def config(folder, case):
    file = changed_copy(folder, "llama") / "config.json"
    content = JSON.get(case) or file.read_text().rstrip().removesuffix("}") + ENDINGS[case]
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file, lambda: load_pretrained(folder)


INDICES = {
    "of_numbers": {"a": 1},
    "of_a_list": ["a"],
    "of_nothing": {},
    "of_zeros": {"a": "\0"},
}


@attack(*JSON, *INDICES)
def index(folder, case):
    changed_copy(folder, "llama")
    (folder / "model.safetensors").unlink()
    file = folder / "model.safetensors.index.json"
    if case in INDICES:
        file.write_text(json.dumps({"weight_map": INDICES[case]}))
    else:
        content = JSON[case]
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file, lambda: load_pretrained(folder)


_LINEAR = dict(rope_type="linear", factor=2.0, rope_theta=1e4)
SIZES = {
    "gpt2_n_layer": ("gpt2", dict(n_layer=10**9)),
    "gpt2_n_embd": ("gpt2", dict(n_embd=10**9)),
    "gpt2_n_embd_in_range": ("gpt2", dict(n_embd=2**24)),
    "albert_layers": ("albert", dict(num_hidden_layers=2**24)),
    "whisper_layers": ("whisper", dict(decoder_layers=2**24)),
    "t5_layers": ("t5", dict(num_layers=10**9)),
    "vit_image": ("vit", dict(image_size=65532)),
    "dinov2_ratio": ("dinov2", dict(mlp_ratio=1e300)),
    "llama_angles": ("llama", dict(head_dim=2**24, rope_parameters=_LINEAR)),
}


@attack(*SIZES)
def size(folder, case):
    family, options = SIZES[case]
    changed_copy(folder, family, **options)
    return folder, lambda: load_pretrained(folder)
