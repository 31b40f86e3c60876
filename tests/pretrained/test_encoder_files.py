"""Options and tensors of the files of encoders: read as they are meant, or refused by name."""

import json
import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from golden.copies import changed_copy, options_of, tensors_of
from helpers import GOLDEN
from pretrained.option_fuzz import check_refused

import ide_transformer as ide
from ide_transformer.pretrained import load_pretrained


HEADS = {
    "bert": ("cls.predictions.decoder", "cls.predictions.bias"),
    "roberta": ("lm_head.decoder", "lm_head.bias"),
    "albert": ("predictions.decoder", "predictions.bias"),
}


@pytest.mark.parametrize("family", ["bert", "t5", "vit", "whisper"])
def test_values_of_another_kind_are_refused_by_name(family, tmp_path):
    folder, options = changed_copy(tmp_path, family), options_of(family)
    sizes = [
        name
        for name, value in options.items()
        # Those of the decoder of T5 are not read.
        if name != "num_decoder_layers"
        and type(value) is int
        and name.startswith(("n_", "num_", "d_", "hidden_s", "vocab"))
    ]
    wrong = [(name, value) for name in sizes for value in (0, 2.0, "2", True)]
    epsilons = [name for name in options if "_eps" in name]
    wrong += [
        (name, value) for name in epsilons for value in (0, -1e-5, math.nan, True, "1e-5")
    ]
    wrong += [("quantization_config", {"bits": 4}), ("is_decoder", True)]
    wrong += [("an_option_of_tomorrow", 1)]
    assert len(sizes) > 2
    check_refused(folder, options, wrong)


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("bert", dict(num_attention_heads=3), "hidden_size = 16 is no multiple of num_att"),
        ("roberta", dict(pad_token_id=-1), "pad_token_id = -1 is no whole number"),
        ("roberta", dict(pad_token_id=23), "max_position_embeddings = 24 is not above 24"),
        # The library takes 1e-12 whatever the file says.
        ("distilbert", dict(layer_norm_eps=1e-5), "layer_norm_eps = 1e-05: not known"),
        ("distilbert", dict(hidden_size=16), "hidden_size = 16: not known"),
        ("t5", dict(dense_act_fn="gelu_new"), "dense_act_fn = 'gelu_new' is not the 'relu' of"),
        ("t5", dict(is_gated_act=True), "is_gated_act = True is not the False of feed_forwa"),
        ("t5", dict(relative_attention_num_buckets=3), "num_buckets = 3 is not supported"),
        ("t5", dict(relative_attention_max_distance=2), "num_buckets = 8 is not supported"),
        ("vit", dict(patch_size=0), "patch_size = 0 is neither a number of pixels nor"),
        ("vit", dict(image_size=2), r"write the size without them, \[4, 4\]"),
        ("vit", dict(id2label=["one"]), "id2label = .* is no object of names"),
        ("vit", dict(num_labels=2), r"classifier.weight: shape \(3, 8\), expected \(2, 8\)"),
        ("dinov2", dict(mlp_ratio=-1), "mlp_ratio = -1 is no finite number above 0"),
        ("whisper", dict(num_hidden_layers=3), "num_hidden_layers = 3 is not supported"),
        ("whisper", dict(decoder_attention_heads=3), "d_model = 8 is no multiple of decoder_a"),
    ],
)
def test_options_that_do_not_fit_are_named(family, options, message, tmp_path):
    with pytest.raises(ide.InputError, match=message):
        load_pretrained(changed_copy(tmp_path, family, **options))


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


def test_the_head_of_roberta_has_one_activation(tmp_path):
    model = load_pretrained(changed_copy(tmp_path, "roberta", hidden_act="relu"))
    assert model.control.blocks[1].activation is ide.relu
    assert model.read_out.head.activation is ide.gelu


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
