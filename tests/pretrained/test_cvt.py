"""Checkpoints of CvT: against stored outputs, and, heavy, against transformers itself."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from golden.make_images import CVT, original, random_images, run
from helpers import GOLDEN, fast_first, largest

import ide_transformer as ide
from ide_transformer.pretrained import load_pretrained, save_pretrained


THREE = dict(embed_dim=[8, 12, 16], num_heads=[1, 3, 2], depth=[1, 2, 3])
CASES = [
    ("CvtForImageClassification", THREE | dict(num_labels=5)),
    ("CvtModel", CVT | dict(num_channels=1, patch_padding=[1, 1], kernel_qkv=[1, 5])),
    (
        "CvtForImageClassification",
        THREE | dict(cls_token=[False] * 3, qkv_bias=[True, False, True], stride_kv=[2, 1, 2]),
    ),
    ("CvtModel", THREE),
]
CASES[1][1].update(padding_q=[0, 2], padding_kv=[0, 2], patch_sizes=[3, 3])


def test_stored_outputs_at_two_sizes():
    stored = np.load(GOLDEN / "cvt" / "outputs.npz")
    model = load_pretrained(GOLDEN / "cvt")
    outputs = eqx.filter_jit(model)
    assert largest(outputs(stored["images"]), stored["logits"]) < 1e-12
    assert largest(outputs(stored["resized_images"]), stored["resized_logits"]) < 1e-12


def reference_of(folder, name, options, dtype):
    transformers = pytest.importorskip("transformers")
    kind = getattr(transformers, name)
    model = original(kind, kind.config_class(**options), dtype)
    model.save_pretrained(folder)
    return model


def outputs_of(reference, images):
    """The logits, or the class token and the tokens of the last stage."""
    # Without a class token, the library needs the states to find its own logits.
    out = run(reference, images, output_hidden_states=True)
    if "logits" in out:
        return out.logits.numpy()
    states = out.last_hidden_state.flatten(2).transpose(1, 2).numpy()
    return np.concatenate([out.cls_token_value.numpy(), states], axis=1)


@pytest.mark.heavy
@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize(("name", "options"), fast_first(0, CASES, heavy=3))
def test_outputs_of_the_library(name, options, tmp_path):
    reference = reference_of(tmp_path / "one", name, options, "float64")
    model = load_pretrained(tmp_path / "one")
    images = random_images((32, 64), model.inputs.image_shape[2])
    expected = outputs_of(reference, images)
    assert largest(eqx.filter_jit(model)(images), expected) < 1e-12 * np.abs(expected).max()
    save_pretrained(model, tmp_path / "two", like=tmp_path / "one")
    again = type(reference).from_pretrained(tmp_path / "two", dtype="float64").eval()
    assert largest(outputs_of(again, images), expected) < 1e-12 * np.abs(expected).max()


@pytest.mark.heavy
@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize(("name", "options"), fast_first(0, CASES, heavy=1))
def test_outputs_of_the_library_in_single_precision(name, options, tmp_path):
    reference = reference_of(tmp_path, name, options, "float32")
    model = load_pretrained(tmp_path)
    images = random_images((32, 64), model.inputs.image_shape[2], dtype=np.float32)
    outputs = eqx.filter_jit(model)(images)
    assert outputs.dtype == jnp.float32
    assert largest(outputs, outputs_of(reference, images)) < 2e-5


def test_images_that_no_grid_fits():
    model = load_pretrained(GOLDEN / "cvt")
    with pytest.raises(ide.InputError, match="stride of 2 does not divide images of 9 by 8"):
        model(np.zeros((9, 8, 3)))
    # The grid of 2 by 3 tokens has no middle ones for its keys.
    with pytest.raises(ide.InputError, match="stride=2 does not divide a grid of 2 by 3"):
        model.equations[0](np.zeros((4, 6, 3)))
