"""Options of `config.json`: read as they are meant, or refused by name; damaged files and files
that attack their reader; and a checkpoint beside the code that it was published with."""

import json
import math
import pickle
import struct
from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import tasks
from ide_transformer.pretrained import (
    Options,
    families,
    find_pretrained,
    load_pretrained,
    save_pretrained,
)
from ide_transformer.pretrained.checkpoint import Checkpoint
from ide_transformer.pretrained.family import expected_shapes
from ide_transformer.pretrained.files import StoredTensor
from tests.golden.copies import changed_copy, make_archive
from tests.helpers import GOLDEN


# As users run it: the checks of annotations would speak before the package does.
pytestmark = pytest.mark.usefixtures("unchecked")
# Options of published checkpoints, their numbers of parameters, and a tensor by which their
# class is recognised; images have three classes.
PUBLISHED = json.loads(Path(__file__).with_name("published.json").read_text())
# What transformers takes for an option that a file does not have.
DEFAULTS = json.loads(Path(__file__).with_name("defaults.json").read_text())


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_options_are_understood(name, tmp_path):
    values, parameters = PUBLISHED[name]["options"], PUBLISHED[name]["parameters"]
    family = families()[values["model_type"]]
    names = frozenset({family.canonical(PUBLISHED[name]["mark"])})
    skeleton = eqx.filter_eval_shape(family.build, Options(values, tmp_path), names)
    shapes = expected_shapes(family.table(skeleton))
    assert sum(map(math.prod, shapes.values())) == parameters
    stored = {k: StoredTensor(np.dtype("f4"), x, pytest.fail) for k, x in shapes.items()}
    Checkpoint.from_tensors(Options(values, tmp_path), stored, tmp_path)


@pytest.mark.parametrize("family", DEFAULTS)
def test_options_that_are_left_out_are_those_of_the_library(family):
    checkpoint = Checkpoint.open(GOLDEN / family)

    def built(options):
        names = frozenset(checkpoint.tensors)
        return eqx.filter_eval_shape(checkpoint.family.build, Options(options, GOLDEN), names)

    rest = {x: y for x, y in checkpoint.options.values.items() if x not in DEFAULTS[family]}
    assert eqx.tree_equal(built(rest), built(rest | DEFAULTS[family]))


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("llama", dict(model_type="mamba"), "model_type = 'mamba'.*gpt2"),
        ("llama", dict(num_key_value_heads=3), "attention_heads = 4 .*nu"),
        (
            "llama",
            dict(rope_scaling=dict(rope_type="yarn", factor=2.0)),
            "rope_type = 'yarn'.*llama3",
        ),
        # An option is named as the file calls it.
        ("distilbert", dict(dim=None), r"config\.json .*\bdim\b"),
        ("vit", dict(image_size=10), r"patch_size = 4.*\[8, 8\]"),
        ("dinov2", dict(image_size=[4, 16]), "DINOv2"),
    ],
)
def test_options_that_do_not_fit_are_named(family, options, message, tmp_path):
    with pytest.raises(ide.InputError, match=message):
        load_pretrained(changed_copy(tmp_path, family, **options))


def test_activations_that_a_file_does_not_name_right(tmp_path):
    gemma = load_pretrained(GOLDEN / "gemma")
    for legacy in ("gelu", None):
        folder = changed_copy(tmp_path, "gemma", hidden_act=legacy, hidden_activation=None)
        assert eqx.tree_equal(load_pretrained(folder), gemma)
    model = load_pretrained(changed_copy(tmp_path, "roberta", hidden_act="relu"))
    assert model.control.blocks[1].activation is ide.relu
    assert model.read_out.head.activation is ide.gelu


def test_images_have_a_side_that_the_strides_of_cvt_divide(tmp_path):
    stages = load_pretrained(changed_copy(tmp_path, "cvt", patch_stride=[4, 3])).equations
    # 4·2 for the keys of the first stage, 4·3 for the second.
    assert stages[0].inputs.image_shape == (240, 240, 3)
    assert stages[1].inputs.windows.image_shape == (60, 60, 4)


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


@pytest.mark.heavy
def test_glassllm_agrees_with_its_own_numpy_and_writes_its_text(monkeypatch):
    # The package's own code, off the wheel that its weights are in.
    monkeypatch.syspath_prepend(find_pretrained("glassllm").parent.parent.parent)
    theirs = {name: pytest.importorskip(f"glassllm.{name}") for name in ("model", "tokenizer")}
    path = find_pretrained("glassllm")
    reference = theirs["model"].GlassLM.load(path, dtype=np.float64)
    their_tokenizer = theirs["tokenizer"].Tokenizer.load(path.with_name("en.tokenizer.json"))
    tokenizer = tasks.PretrainedTokenizer.from_pretrained(path)
    text = tasks.shakespeare()[:3000] + "\n\n  Alice ☃ said,  “no”.\n"
    tokens = their_tokenizer.encode(text)
    assert tokenizer.encode(text).tolist() == tokens
    said = "Alice said, “no”.\n"
    assert tokenizer.decode(their_tokenizer.encode(said)) == said
    window = np.array(tokens[:128])
    expected = reference.forward(window).data[0]
    model = load_pretrained("glassllm", dtype=jnp.float64)
    logits = eqx.filter_jit(model)(window)
    assert np.abs(logits - expected).max() < 1e-12 * np.abs(expected).max()

    prompt = their_tokenizer.encode("Alice was")
    text = ide.generate(model, np.array(prompt), 40, temperature=0.0)
    steps = reference.generate(prompt, 40, greedy=True)
    assert text[len(prompt) :].tolist() == [step.token for step in steps]
