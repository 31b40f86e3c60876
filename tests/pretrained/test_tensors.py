"""Tensors of checkpoints: all of them are read, known as copies, or named."""

import json

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from golden.copies import changed_copy, options_of, tensors_of
from helpers import GOLDEN

import ide_transformer as ide
from ide_transformer.pretrained import families, load_pretrained


HEADS = {
    "bert": ("cls.predictions.decoder", "cls.predictions.bias"),
    "roberta": ("lm_head.decoder", "lm_head.bias"),
    "albert": ("predictions.decoder", "predictions.bias"),
}


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


@pytest.mark.parametrize("family", HEADS)
def test_an_untied_head_has_a_bias_of_its_own(family, tmp_path):
    decoder, bias = HEADS[family]
    random = np.random.default_rng(0)

    def with_decoder(tensors):
        embedding = next(x for name, x in tensors.items() if "word_embeddings" in name)
        own = {"weight": embedding.shape, "bias": embedding.shape[:1]}
        drawn = {f"{decoder}.{k}": random.standard_normal(x) for k, x in own.items()}
        return tensors | drawn

    folder = changed_copy(tmp_path, family, with_decoder, tie_word_embeddings=False)
    with pytest.warns(UserWarning, match=f"not part of the model, so not read: {bias}"):
        head = load_pretrained(folder).read_out.head
    tensors = tensors_of(folder)
    assert np.array_equal(head.bias, tensors[f"{decoder}.bias"])
    assert np.array_equal(head.readout, tensors[f"{decoder}.weight"])
    # The same file with the options of a tied head.
    (folder / "config.json").write_text(json.dumps(options_of(family)))
    with pytest.raises(ide.InputError) as error:
        load_pretrained(folder)
    assert f"{decoder}.bias (61,): differs from {bias}, which" in str(error.value)
    assert "differs from " in str(error.value)
    assert ".embeddings.word_embeddings.weight, which config" in str(error.value)


@pytest.mark.parametrize(
    ("family", "name", "other"),
    [
        (
            "distilbert",
            "vocab_projector.weight",
            "distilbert.embeddings.word_embeddings.weight",
        ),
        ("t5", "encoder.embed_tokens.weight", "shared.weight"),
        ("whisper", "proj_out.weight", "model.decoder.embed_tokens.weight"),
    ],
)
def test_a_tensor_that_should_repeat_another_is_compared(family, name, other, tmp_path):
    folder = changed_copy(tmp_path / "same", family, lambda x: x | {name: x[other]})
    assert eqx.tree_equal(load_pretrained(folder), load_pretrained(GOLDEN / family))
    folder = changed_copy(tmp_path / "other", family, lambda x: x | {name: x[other] + 1})
    with pytest.raises(ide.InputError, match=rf"{name} .*: differs from"):
        load_pretrained(folder)


def test_the_decoder_of_t5_is_named_and_not_read(tmp_path):
    """Its read-out may differ from the embedding."""

    def with_decoder(tensors):
        layers = {f"decoder.block.{i}.layer.0.SelfAttention.q.weight": 0 for i in range(3)}
        return tensors | dict.fromkeys(layers, np.zeros(3)) | {"lm_head.weight": np.zeros(3)}

    folder = changed_copy(tmp_path, "t5", with_decoder)
    names = r"read: decoder\.block\.\*\.layer\.\*\.SelfAttention\.q\.weight, lm_head\.weight\.$"
    with pytest.warns(UserWarning, match=names):
        model = load_pretrained(folder)
    assert eqx.tree_equal(model, load_pretrained(GOLDEN / "t5"))


def with_head(tmp_path, change, **options):
    """A tied Llama whose file also has a read-out."""

    def tensors(old):
        head = change(old["model.embed_tokens.weight"])
        return old | {"lm_head.weight": head}

    return changed_copy(tmp_path, "llama", tensors, tie_word_embeddings=True, **options)


def test_a_read_out_beside_a_tied_one_must_repeat_the_embedding(tmp_path):
    model = load_pretrained(with_head(tmp_path / "same", np.copy))
    assert model.read_out.weight is None
    with pytest.raises(ide.InputError, match=r"lm_head.weight .*: differs from model.embed_to"):
        load_pretrained(with_head(tmp_path / "other", lambda x: x + 1))
    with pytest.raises(ide.InputError, match=r"lm_head.weight .*: differs from model.embed_to"):
        load_pretrained(with_head(tmp_path / "short", lambda x: x[:5]))


def test_a_tensor_under_two_names_is_refused(tmp_path):
    def twice(tensors):
        return tensors | {"norm.weight": tensors["model.norm.weight"] + 1}

    with pytest.raises(ide.InputError, match=r"norm.weight: there under another name too"):
        load_pretrained(changed_copy(tmp_path, "llama", twice))


def test_weights_that_are_not_read_are_named(monkeypatch, tmp_path):
    def with_value_head(tensors):
        return tensors | {"v_head.weight": np.zeros((1, 16))}

    folder = changed_copy(tmp_path, "gpt2", with_value_head)
    with pytest.raises(ide.InputError, match=r"v_head.weight \(1, 16\): not known"):
        load_pretrained(folder)
    family = families()["gpt2"]._replace(unread=r"v_head\..*")
    monkeypatch.setitem(families(), "gpt2", family)
    with pytest.warns(UserWarning, match=r"not part of the model, so not read: v_head.weight"):
        load_pretrained(folder)


def test_roberta_counts_the_tokens_that_are_no_padding():
    model, padding = load_pretrained(GOLDEN / "roberta"), 0
    tokens = np.arange(3, 9)
    # Behind the text, in front of it, and inside.
    texts = np.stack([np.insert(tokens, at, padding) for at in ([6] * 3, [0] * 3, [2, 4, 4])])
    counted = texts != padding
    u = np.asarray(model.embed(ide.Text(texts, counted))[0])
    assert np.array_equal(u[counted].reshape(3, 6, -1), [u[0, :6]] * 3)
    assert np.ptp(u[~counted], axis=0).max() == 0


@pytest.mark.parametrize(("family", "known"), [("bert", 2), ("roberta", 1), ("distilbert", 1)])
def test_segments_out_of_range_are_refused(family, known):
    model, tokens = load_pretrained(GOLDEN / family), np.arange(3, 7)
    model.embed(ide.Text(tokens, segments=np.full(4, known - 1)))
    for segment in (known, -1):
        with pytest.raises(
            ide.InputError, match=rf"a segment {segment}, but .* 0 to {known - 1}"
        ):
            model.embed(ide.Text(tokens, segments=np.array([0, 0, segment, 0])))
        if model.inputs.segments is not None:
            text = ide.Text(jnp.asarray(tokens), segments=jnp.array([0, 0, segment, 0]))
            u0, _ = eqx.filter_jit(model.embed)(text)
            assert np.isnan(u0).all(axis=-1).tolist() == [False, False, True, False]
