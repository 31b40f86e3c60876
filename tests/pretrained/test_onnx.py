"""Checkpoints in ONNX files."""

import json
import sys

import equinox as eqx
import jax
import numpy as np
import pytest
from golden.make_images import random_images
from helpers import fast_first, largest
from pretrained.image_references import COMMON, DINOV2, VIT, WIDE, checkpoint, output_of

import ide_transformer as ide
from ide_transformer.pretrained import load_onnx, load_pretrained


def test_onnx_without_its_package(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ide.InputError, match=r"pip install 'ide_transformer\[onnx\]'"):
        load_onnx(tmp_path / "model.onnx")


def export(reference, file, images, **options):
    import torch

    pixels = torch.tensor(np.moveaxis(images, -1, -3).copy())
    axes = {"pixel_values": {0: "batch"}}
    torch.onnx.export(
        *(reference, (pixels,), file),
        input_names=["pixel_values"],
        dynamic_axes=axes,
        dynamo=False,
        **options,
    )


@pytest.mark.heavy
@pytest.mark.usefixtures("optimised")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "options", "folding"),
    fast_first(
        0,
        [
            ("DeiTForImageClassificationWithTeacher", VIT, True),
            ("ViTForImageClassification", WIDE | dict(qkv_bias=False), True),
            ("Dinov2ForImageClassification", DINOV2, False),
            ("ViTModel", VIT, True),
            ("ViTForImageClassification", VIT, False),
        ],
        heavy=3,
    ),
)
def test_onnx_files(name, options, folding, tmp_path):
    reference = checkpoint(tmp_path / "checkpoint", name, options, "float32")
    native = load_pretrained(tmp_path / "checkpoint")
    images = random_images(native.image_shape[:2], dtype=np.float32)
    export(reference, tmp_path / "model.onnx", images, do_constant_folding=folding)
    given = json.loads((tmp_path / "checkpoint" / "config.json").read_text())
    model = load_onnx(tmp_path / "model.onnx", options=given)
    assert largest(eqx.filter_jit(model)(images), output_of(reference, images)) < 2e-5
    leaves = map(jax.tree.leaves, (model, native))
    assert all(np.array_equal(x, y) for x, y in zip(*leaves, strict=True))


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore")
def test_onnx_files_with_equal_tensors(tmp_path):
    """The exporter writes equal tensors once: biases of zeros, gains of ones."""
    transformers = pytest.importorskip("transformers")
    reference = transformers.ViTModel(transformers.ViTConfig(**(COMMON | VIT))).eval()
    images = random_images((16, 16), dtype=np.float32)
    export(reference, tmp_path / "model.onnx", images)
    reference.config.save_pretrained(tmp_path)
    outputs = eqx.filter_jit(load_onnx(tmp_path / "model.onnx"))(images)
    assert largest(outputs, output_of(reference, images)) < 2e-5


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore")
def test_onnx_files_that_cannot_be_read(tmp_path):
    onnx = pytest.importorskip("onnx")
    reference = checkpoint(tmp_path / "checkpoint", "ViTModel", VIT, "float32")
    file = tmp_path / "model.onnx"
    with pytest.raises(ide.InputError, match="There is no file"):
        load_onnx(file)
    export(reference, file, random_images((16, 16), dtype=np.float32))
    with pytest.raises(ide.InputError, match=r"no config\.json next to it"):
        load_onnx(file)
    with pytest.raises(ide.InputError, match="options has no hidden_size"):
        load_onnx(file, options={"model_type": "vit"})
    model = onnx.load(file)
    for number, node in enumerate(model.graph.node):
        node.name = f"node_{number}"
    onnx.save(model, file)
    given = json.loads((tmp_path / "checkpoint" / "config.json").read_text())
    with pytest.raises(ide.InputError, match=r"the matrix product 'node_.* dynamo=False"):
        load_onnx(file, options=given)
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ide.InputError, match="is no ONNX file, or is damaged"):
        load_onnx(file, options=given)
