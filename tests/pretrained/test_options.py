"""Options of `config.json`: read as they are meant, or refused by name."""

import json
import math

import equinox as eqx
import numpy as np
import pytest
from golden.copies import changed_copy, options_of
from helpers import GOLDEN
from pretrained.option_fuzz import check_refused

import ide_transformer as ide
from ide_transformer.pretrained import load_pretrained


# As users run it: the checks of annotations would speak before the package does.
pytestmark = pytest.mark.usefixtures("unchecked")
DECODERS = ("gemma", "gpt2", "gpt_neox", "gptj", "llama", "mistral", "qwen2", "qwen3")


@pytest.mark.parametrize("family", ["bert", "t5", "vit", "whisper", *DECODERS])
def test_values_of_another_kind_are_refused_by_name(family, tmp_path):
    folder, options = changed_copy(tmp_path, family), options_of(family)
    sizes = [
        name
        for name in options
        # Those of the decoder of T5 are not read.
        if name != "num_decoder_layers"
        and name.startswith(("n_", "num_", "d_", "hidden_s", "vocab"))
        and options[name] is not None
    ]
    wrong = [(name, value) for name in sizes for value in (0, 2.0, "2", True)]
    epsilons = [name for name in options if "_eps" in name]
    wrong += [(name, x) for name in epsilons for x in (0, -1e-5, math.nan, True, "1e-5")]
    if family in DECODERS:
        wrong += [("tie_word_embeddings", value) for value in (1, None)]
    wrong += [("quantization_config", {"bits": 4}), ("pruned_heads", {"0": [1]})]
    wrong += [("an_option_of_tomorrow", 1), ("is_decoder", True)]
    assert len(sizes) > 2
    check_refused(folder, options, wrong)


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        (
            "mistral",
            dict(hidden_size=18, head_dim=None),
            "hidden_size = 18 is no multiple of num_attention",
        ),
        ("llama", dict(num_key_value_heads=3), "num_attention_heads = 4 is no multiple of nu"),
        ("gpt2", dict(n_head=3), "n_embd = 16 is no multiple of n_head = 3"),
        ("gptj", dict(rotary_dim=3), "3 of the 4 features of a head.*rotary_dim"),
        ("llama", dict(head_dim=5), "5 of the 5 features of a head.*head_dim"),
        ("llama", dict(partial_rotary_factor=0.5), "partial_rotary_factor = 0.5"),
        ("llama", dict(rope_scaling=dict(type="linear")), "no rope_scaling.factor"),
        ("llama", dict(rope_scaling=dict(type="default", x=1)), "rope_scaling.x = 1: not kn"),
        ("llama", dict(rope_scaling="linear"), "rope_scaling = 'linear' is no object"),
        ("llama", dict(num_hidden_layers=2**24 + 1), "num_hidden_layers = 16777217 is no wh"),
        ("llama", dict(num_hidden_layers=900), "a weight of shape .*numbers in all"),
        (
            "qwen3",
            dict(layer_types=["full_attention"]),
            "layer_types = .*2 layers .num_hidden_layers",
        ),
        ("qwen2", dict(layer_types=["sliding_attention"] * 2), "layer_types"),
        ("gemma", dict(use_bidirectional_attention=True), "use_bidirectional_attention = True"),
        ("gemma", dict(hidden_activation="gelu"), "hidden_activation = 'gelu' is not supp"),
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
        ("cvt", dict(cls_token=[True, True]), r"cls_token\[0\] = True is not .*: False"),
        ("cvt", dict(stride_q=[1, 2]), r"stride_q\[1\] = 2 is not supported. Supported: 1"),
        ("cvt", dict(kernel_qkv=[2, 3]), r"kernel_qkv\[0\] = 2 is even"),
        ("cvt", dict(padding_kv=[0, 1]), r"padding_kv\[0\] = 0 is not supported"),
        ("cvt", dict(qkv_projection_method=["avg", "dw_bn"]), r"method\[0\] = 'avg'"),
        ("cvt", dict(num_heads=[3, 2]), r"dim\[0\] = 4 is no multiple of num_heads\[0\] = 3"),
        ("cvt", dict(embed_dim=[4]), r"embed_dim = \[4\] is no list of 2 entries"),
        ("cvt", dict(depth=2), r"depth = 2 is no list"),
        ("cvt", dict(patch_padding=[0, 1]), "window=5, stride=2, padding=0 do not give"),
    ],
)
def test_options_that_do_not_fit_are_named(family, options, message, tmp_path):
    with pytest.raises(ide.InputError, match=message):
        load_pretrained(changed_copy(tmp_path, family, **options))


def test_poolers_that_are_not_supported(tmp_path):
    def with_pooler(tensors):
        pooler = dict(weight=np.zeros((8, 8)), bias=np.zeros(8))
        return tensors | {f"vit.pooler.dense.{name}": x for name, x in pooler.items()}

    with pytest.raises(ide.InputError, match="pooler_act = 'relu' is not supported"):
        load_pretrained(changed_copy(tmp_path / "one", "vit", with_pooler, pooler_act="relu"))
    # A checkpoint without a pooler does not mind.
    model = load_pretrained(changed_copy(tmp_path / "two", "vit", pooler_act="relu"))
    assert not hasattr(model.read_out, "pooler")


@pytest.mark.parametrize("legacy", [dict(hidden_act="gelu"), dict(hidden_act=None)])
def test_gemma_means_the_tanh_form(legacy, tmp_path):
    folder = changed_copy(tmp_path, "gemma", **legacy)
    options = json.loads((folder / "config.json").read_text()) | dict(hidden_activation=None)
    (folder / "config.json").write_text(json.dumps(options))
    assert eqx.tree_equal(load_pretrained(folder), load_pretrained(GOLDEN / "gemma"))


def window_of(folder):
    return load_pretrained(folder).control.blocks[0].region.window


def test_windows_of_mistral(tmp_path):
    assert window_of(changed_copy(tmp_path, "mistral")) == 4
    assert window_of(changed_copy(tmp_path, "mistral", sliding_window=None)) == 4096
    options = options_of("mistral") | dict(sliding_window=None)
    (tmp_path / "config.json").write_text(json.dumps(options))
    assert window_of(tmp_path) is None


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
@pytest.mark.parametrize(
    ("options", "window"),
    [
        (dict(layer_types=["sliding_attention"] * 2), 4),
        (dict(layer_types=["full_attention"] * 2, max_window_layers=0), None),
        (dict(layer_types=None, max_window_layers=0), 4),
        (dict(layer_types=None, max_window_layers=2), None),
        # The default is 28.
        (dict(layer_types=None, max_window_layers=None), None),
        (dict(layer_types=None, max_window_layers=0, sliding_window=None), 4096),
        (dict(layer_types=None, max_window_layers=0, use_sliding_window=False), None),
    ],
)
def test_windows_of_qwen(family, options, window, tmp_path):
    windowed = dict(use_sliding_window=True, sliding_window=4)
    assert window_of(changed_copy(tmp_path, family, **windowed | options)) == window


def test_the_head_of_roberta_has_one_activation(tmp_path):
    model = load_pretrained(changed_copy(tmp_path, "roberta", hidden_act="relu"))
    assert model.control.blocks[1].activation is ide.relu
    assert model.read_out.head.activation is ide.gelu
