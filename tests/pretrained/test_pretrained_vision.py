"""Checkpoints of images: against stored outputs, and, heavy, against the library itself."""

import json
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.make_goldens_vision import (
    GOLDEN,
    original,
    random_images,
    resizing,
    run,
    states_or_logits,
)
from helpers import largest
from safetensors.numpy import load_file, save_file

import ide_transformer as ide
from ide_transformer.pretrained import load_onnx, load_pretrained, save_pretrained


FAMILIES = ("vit", "deit", "dinov2")


@pytest.fixture
def optimised():
    """Compiled as users compile."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.mark.parametrize("family", FAMILIES)
def test_stored_outputs(family):
    stored = np.load(GOLDEN / family / "outputs.npz")
    model = load_pretrained(GOLDEN / family)
    assert largest(model(stored["images"]), stored["logits"]) < 1e-12
    resized = model.resized(stored["resized_images"].shape[-3:-1])
    # The library interpolates the positions of DINOv2 in single precision.
    bound = 1e-6 if family == "dinov2" else 1e-12
    assert largest(resized(stored["resized_images"]), stored["resized_logits"]) < bound
    single = load_pretrained(GOLDEN / family, dtype=jnp.float32)(stored["images"])
    assert single.dtype == jnp.float32
    assert largest(single, stored["logits"]) < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_written_is_what_was_read(family, tmp_path):
    save_pretrained(load_pretrained(GOLDEN / family), tmp_path, like=GOLDEN / family)
    written = load_file(tmp_path / "model.safetensors")
    before = load_file(GOLDEN / family / "model.safetensors")
    # The token of masked patches is no weight of the model.
    assert written.keys() == {name for name in before if "mask_token" not in name}
    assert all((before[name] == x).all() for name, x in written.items())
    assert json.loads((tmp_path / "config.json").read_text()) == options_of(family)


def options_of(family):
    return json.loads((GOLDEN / family / "config.json").read_text())


def changed(folder, family, tensors=lambda x: x, **options):
    """A copy of a stored checkpoint with other options or tensors."""
    shutil.copytree(GOLDEN / family, folder, dirs_exist_ok=True)
    (folder / "config.json").write_text(json.dumps(options_of(family) | options))
    held = load_file(folder / "model.safetensors")
    save_file(tensors(held), folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("vit", dict(patch_size=[4, 2]), r"patch_size = \[4, 2\] is not supported"),
        ("vit", dict(image_size=10), r"no multiple of patch_size = 4.*write .*\[8, 8\]"),
        ("vit", dict(image_size="8"), "image_size = '8' is neither a number nor"),
        ("vit", dict(hidden_act="mish"), "hidden_act = 'mish' is not supported"),
        ("dinov2", dict(image_size=[4, 16]), "positions of DINOv2 lie on a square"),
        ("dinov2", dict(use_swiglu_ffn=2), "use_swiglu_ffn = 2 is not supported"),
    ],
)
def test_options_that_are_not_supported(family, options, message, tmp_path):
    with pytest.raises(ide.InputError, match=message):
        load_pretrained(changed(tmp_path, family, **options))


def test_poolers_that_are_not_supported(tmp_path):
    def with_pooler(tensors):
        pooler = dict(weight=np.zeros((8, 8)), bias=np.zeros(8))
        return tensors | {f"vit.pooler.dense.{name}": x for name, x in pooler.items()}

    with pytest.raises(ide.InputError, match="pooler_act = 'relu' is not supported"):
        load_pretrained(changed(tmp_path / "one", "vit", with_pooler, pooler_act="relu"))
    # A checkpoint without a pooler does not mind.
    assert load_pretrained(changed(tmp_path / "two", "vit", pooler_act="relu")).pooler is None


def test_tensors_that_do_not_fit_are_listed(tmp_path):
    def without(tensors):
        names = ("vit.embeddings.cls_token", "classifier.bias")
        return {name: x for name, x in tensors.items() if name not in names}

    with pytest.raises(ide.InputError) as error:
        load_pretrained(changed(tmp_path, "vit", without, num_channels=1))
    message = str(error.value)
    assert "embeddings.cls_token (1, 1, 8): missing" in message
    assert "classifier.bias (3,): missing" in message
    assert "projection.weight: shape (8, 3, 4, 4), expected (8, 1, 4, 4)" in message
    assert len(message.splitlines()) == 4


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

    model = load_pretrained(changed(tmp_path, family, renamed))
    images = random_images((8, 8))
    assert largest(model(images), load_pretrained(GOLDEN / family)(images)) == 0.0


def test_models_that_the_layout_has_no_word_for(tmp_path):
    model = load_pretrained(GOLDEN / "vit")
    heads = ide.NoHead(), ide.PrefixHead(model.head.classifiers * 2)
    for other in (model.resized((12, 8)), *map(model.with_head, heads)):
        with pytest.raises(ide.InputError, match="The weights of the model are not those of"):
            save_pretrained(other, tmp_path / "new", like=GOLDEN / "vit")

    def without_head(tensors):
        return {name: x for name, x in tensors.items() if "classifier" not in name}

    bare = changed(tmp_path / "bare", "vit", without_head)
    with pytest.raises(ide.InputError, match=r"\(8, 3\): no place"):
        other = load_pretrained(bare).with_head(ide.PrefixAndMeanHead(*model.head.classifiers))
        save_pretrained(other, tmp_path / "new", like=bare)
    assert not (tmp_path / "new").exists()


def test_onnx_without_its_package(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ide.InputError, match=r"pip install 'ide_transformer\[onnx\]'"):
        load_onnx(tmp_path / "model.onnx")


COMMON = dict(hidden_size=24, num_hidden_layers=3, num_attention_heads=4, patch_size=4)
WIDE = dict(image_size=[8, 16], intermediate_size=40)
VIT = dict(image_size=16, intermediate_size=40)
DINOV2 = dict(image_size=16)
CASES = [
    ("ViTModel", VIT),
    ("ViTModel", WIDE | dict(hidden_act="gelu_new", pooler_output_size=10)),
    ("ViTForImageClassification", VIT | dict(num_labels=7)),
    ("ViTForImageClassification", WIDE | dict(qkv_bias=False, num_attention_heads=3)),
    ("ViTForImageClassification", VIT | dict(num_labels=0, num_channels=1, patch_size=2)),
    ("ViTForMaskedImageModeling", VIT),
    ("DeiTModel", VIT),
    ("DeiTForImageClassification", VIT | dict(hidden_act="quick_gelu", num_labels=3)),
    ("DeiTForImageClassificationWithTeacher", WIDE | dict(num_labels=5, qkv_bias=False)),
    ("Dinov2Model", DINOV2),
    ("Dinov2Model", DINOV2 | dict(use_swiglu_ffn=True, qkv_bias=False)),
    ("Dinov2ForImageClassification", DINOV2 | dict(mlp_ratio=2, hidden_act="relu")),
    ("Dinov2ForImageClassification", DINOV2 | dict(use_swiglu_ffn=True, use_mask_token=False)),
]


def checkpoint(folder, name, options, dtype="float64"):
    """A model of the library with random parameters, and its checkpoint."""
    transformers = pytest.importorskip("transformers")
    kind = getattr(transformers, name)
    model = original(kind, kind.config_class(**(COMMON | options)), dtype)
    model.save_pretrained(folder)
    return model


def output_of(model, images, **options):
    """What `ImageEncoder` returns, by the library."""
    if "MaskedImageModeling" in type(model).__name__ or model.config.num_labels == 0:
        model = model.base_model
    return states_or_logits(run(model, images, **options))


def relative(x, y):
    return largest(x, y) / float(np.abs(y).max())


@pytest.mark.heavy
@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize(("name", "options"), CASES)
def test_outputs_of_the_library(name, options, tmp_path):
    reference = checkpoint(tmp_path / "one", name, options)
    model = load_pretrained(tmp_path / "one")
    rows, columns, channels = model.image_shape
    images = random_images((rows, columns), channels)
    expected = output_of(reference, images)
    outputs = model(images)
    assert outputs.shape == expected.shape
    assert relative(outputs, expected) < 1e-12
    if model.pooler is not None:
        pooled = run(reference, images).pooler_output.numpy()
        assert relative(model.pooled(outputs), pooled) < 1e-12
    save_pretrained(model, tmp_path / "two", like=tmp_path / "one")
    again = type(reference).from_pretrained(tmp_path / "two", dtype="float64").eval()
    assert relative(output_of(again, images), expected) < 1e-12


@pytest.mark.heavy
@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize(("name", "options"), CASES)
def test_outputs_of_the_library_in_single_precision(name, options, tmp_path):
    reference = checkpoint(tmp_path, name, options, "float32")
    model = load_pretrained(tmp_path)
    rows, columns, channels = model.image_shape
    images = random_images((rows, columns), channels, dtype=np.float32)
    outputs = model(images)
    assert outputs.dtype == jnp.float32
    assert largest(outputs, output_of(reference, images)) < 2e-5


@pytest.mark.heavy
@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize("size", [(24, 24), (8, 20), (4, 36)])
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
    model, images = load_pretrained(tmp_path).resized(size), random_images(size)
    expected = output_of(reference, images, **resizing(reference))
    assert relative(model(images), expected) < bound


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
    [
        ("ViTModel", VIT, True),
        ("ViTForImageClassification", WIDE | dict(qkv_bias=False), True),
        ("ViTForImageClassification", VIT, False),
        ("DeiTForImageClassificationWithTeacher", VIT, True),
        ("Dinov2ForImageClassification", DINOV2, False),
    ],
)
def test_onnx_files(name, options, folding, tmp_path):
    reference = checkpoint(tmp_path / "checkpoint", name, options, "float32")
    native = load_pretrained(tmp_path / "checkpoint")
    images = random_images(native.image_shape[:2], dtype=np.float32)
    export(reference, tmp_path / "model.onnx", images, do_constant_folding=folding)
    given = json.loads((tmp_path / "checkpoint" / "config.json").read_text())
    model = load_onnx(tmp_path / "model.onnx", options=given)
    assert largest(model(images), output_of(reference, images)) < 2e-5
    assert jax.tree.all(jax.tree.map(lambda x, y: (x == y).all(), model, native))


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore")
def test_onnx_files_with_equal_tensors(tmp_path):
    """The exporter writes equal tensors once: biases of zeros, gains of ones."""
    transformers = pytest.importorskip("transformers")
    reference = transformers.ViTModel(transformers.ViTConfig(**(COMMON | VIT))).eval()
    images = random_images((16, 16), dtype=np.float32)
    export(reference, tmp_path / "model.onnx", images)
    reference.config.save_pretrained(tmp_path)
    outputs = load_onnx(tmp_path / "model.onnx")(images)
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
