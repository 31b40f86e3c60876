"""Checkpoints of images: against stored outputs, and, heavy, against transformers itself."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from golden.copies import changed_copy
from golden.make_images import random_images, resizing, run
from helpers import GOLDEN, fast_first, largest
from pretrained.image_references import DINOV2, VIT, WIDE, checkpoint, output_of, relative

import ide_transformer as ide
from ide_transformer.pretrained import load_pretrained, save_pretrained


FAMILIES = ("vit", "deit", "dinov2")
CASES = [
    ("ViTModel", WIDE | dict(hidden_act="gelu_new", pooler_output_size=10)),
    ("Dinov2Model", DINOV2 | dict(use_swiglu_ffn=True, qkv_bias=False)),
    ("ViTForImageClassification", WIDE | dict(qkv_bias=False, num_attention_heads=3)),
    ("ViTForImageClassification", VIT | dict(num_labels=0, num_channels=1, patch_size=2)),
    ("ViTForMaskedImageModeling", VIT),
    ("DeiTModel", VIT),
    ("DeiTForImageClassification", VIT | dict(hidden_act="quick_gelu", num_labels=3)),
    ("DeiTForImageClassificationWithTeacher", WIDE | dict(num_labels=5, qkv_bias=False)),
    ("Dinov2ForImageClassification", DINOV2 | dict(mlp_ratio=2, hidden_act="relu")),
    ("Dinov2ForImageClassification", DINOV2 | dict(use_swiglu_ffn=True, use_mask_token=False)),
    ("Dinov2Model", DINOV2),
    ("ViTModel", VIT),
    ("ViTForImageClassification", VIT | dict(num_labels=7)),
]


@eqx.filter_jit
def outputs_of(model, images):
    """The outputs, and what a pooler makes of them."""
    outputs = model(images)
    pooler = getattr(model.read_out, "pooler", None)
    return outputs, None if pooler is None else model.read_out.pooled(outputs)


def at_size(model, size):
    """The model for images of (rows, columns) pixels."""
    return model.on(ide.Mesh(tokens=tuple(side // model.inputs.stride for side in size)))


@pytest.mark.filterwarnings("ignore:.*not part of the model, so not read")
@pytest.mark.parametrize("family", FAMILIES)
def test_stored_outputs(family):
    stored = np.load(GOLDEN / family / "outputs.npz")
    model = load_pretrained(GOLDEN / family)
    outputs = eqx.filter_jit(model)(stored["images"])
    assert largest(outputs, stored["logits"]) < 1e-12
    resized = at_size(model, stored["resized_images"].shape[-3:-1])
    # The library interpolates the positions of DINOv2 in single precision.
    bound = 1e-6 if family == "dinov2" else 1e-12
    outputs = eqx.filter_jit(resized)(stored["resized_images"])
    assert largest(outputs, stored["resized_logits"]) < bound


def test_in_single_precision():
    stored = np.load(GOLDEN / "deit" / "outputs.npz")
    single = load_pretrained(GOLDEN / "deit", dtype=jnp.float32)
    outputs = eqx.filter_jit(single)(stored["images"])
    assert outputs.dtype == jnp.float32
    assert largest(outputs, stored["logits"]) < 1e-5


@pytest.mark.parametrize("family", ["vit", "deit"])
def test_names_of_modules_of_newer_versions(family, tmp_path):
    words = (
        ("encoder.layer.", "layers."),
        ("attention.attention.query", "attention.q_proj"),
        ("attention.attention.key", "attention.k_proj"),
        ("attention.attention.value", "attention.v_proj"),
        ("attention.output.dense", "attention.o_proj"),
        ("intermediate.dense", "mlp.fc1"),
        ("output.dense", "mlp.fc2"),
    )

    def renamed(tensors):
        for old, new in words:
            tensors = {name.replace(old, new): x for name, x in tensors.items()}
        assert not any("dense" in name for name in tensors)
        return tensors

    model = load_pretrained(changed_copy(tmp_path, family, renamed))
    assert eqx.tree_equal(model, load_pretrained(GOLDEN / family))


@pytest.mark.heavy
@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize(("name", "options"), fast_first(0, CASES, heavy=9))
def test_outputs_of_the_library(name, options, tmp_path):
    reference = checkpoint(tmp_path / "one", name, options)
    model = load_pretrained(tmp_path / "one")
    rows, columns, channels = model.inputs.image_shape
    images = random_images((rows, columns), channels)
    expected = output_of(reference, images)
    outputs, pooled = outputs_of(model, images)
    assert outputs.shape == expected.shape
    assert relative(outputs, expected) < 1e-12
    if pooled is not None:
        assert relative(pooled, run(reference, images).pooler_output.numpy()) < 1e-12
    save_pretrained(model, tmp_path / "two", like=tmp_path / "one")
    again = type(reference).from_pretrained(tmp_path / "two", dtype="float64").eval()
    assert relative(output_of(again, images), expected) < 1e-12


@pytest.mark.heavy
@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize(("name", "options"), fast_first(0, CASES, heavy=2))
def test_outputs_of_the_library_in_single_precision(name, options, tmp_path):
    reference = checkpoint(tmp_path, name, options, "float32")
    model = load_pretrained(tmp_path)
    rows, columns, channels = model.inputs.image_shape
    images = random_images((rows, columns), channels, dtype=np.float32)
    outputs, _ = outputs_of(model, images)
    assert outputs.dtype == jnp.float32
    assert largest(outputs, output_of(reference, images)) < 2e-5


@pytest.mark.heavy
@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize("size", fast_first(0, [((24, 24),), ((8, 20),), ((4, 36),)], heavy=1))
@pytest.mark.parametrize(
    ("name", "options", "bound"),
    [
        ("ViTForImageClassification", VIT, 1e-12),
        ("DeiTModel", VIT, 1e-12),
        # The library interpolates these in single precision.
        ("Dinov2Model", DINOV2, 1e-6),
    ],
)
def test_other_sizes_of_images(name, options, bound, size, tmp_path):
    reference = checkpoint(tmp_path, name, options)
    model, images = at_size(load_pretrained(tmp_path), size), random_images(size)
    expected = output_of(reference, images, **resizing(reference))
    assert relative(outputs_of(model, images)[0], expected) < bound
