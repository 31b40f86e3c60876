"""Options of `config.json`: read as they are meant, or refused by name."""

import json
import math
from pathlib import Path

import equinox as eqx
import numpy as np
import pytest
from golden.copies import changed_copy, options_of
from helpers import GOLDEN

import ide_transformer as ide
from ide_transformer.pretrained import Options, families, load_pretrained
from ide_transformer.pretrained.checkpoint import Checkpoint
from ide_transformer.pretrained.family import expected_shapes
from ide_transformer.pretrained.files import StoredTensor


# As users run it: the checks of annotations would speak before the package does.
pytestmark = pytest.mark.usefixtures("unchecked")
# Options of published checkpoints and their numbers of parameters; images have three classes.
PUBLISHED = json.loads(Path(__file__).with_name("published.json").read_text())
# What transformers takes for an option that a file does not have.
DEFAULTS = json.loads(Path(__file__).with_name("defaults.json").read_text())
# A tensor by which a class of transformers is recognised.
MARKS = {
    "AlbertForMaskedLM": "predictions.dense.weight",
    "BertForMaskedLM": "cls.predictions.transform.dense.weight",
    "BertModel": "pooler.dense.weight",
    "CvtForImageClassification": "classifier.weight",
    "DeiTForImageClassificationWithTeacher": "cls_classifier.weight",
    "DistilBertForMaskedLM": "vocab_transform.weight",
    "RobertaForMaskedLM": "lm_head.dense.weight",
    "ViTForImageClassification": "classifier.weight",
    "ViTModel": "pooler.dense.weight",
}
LINEAR, YARN = dict(type="linear"), dict(rope_type="yarn", factor=2.0)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=0.5, high_freq_factor=1.5)
LLAMA3 |= dict(original_max_position_embeddings=16)
WINDOW = dict(use_sliding_window=True, sliding_window=4)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_options_are_understood(name, tmp_path):
    values, parameters = PUBLISHED[name]["options"], PUBLISHED[name]["parameters"]
    family = families()[values["model_type"]]
    names = frozenset({family.canonical(MARKS.get(values["architectures"][0], ""))})
    skeleton = eqx.filter_eval_shape(family.build, Options(values, tmp_path), names)
    shapes = expected_shapes(family.table(skeleton))
    assert sum(map(math.prod, shapes.values())) == parameters
    stored = {k: StoredTensor(np.dtype("f4"), x, pytest.fail) for k, x in shapes.items()}
    Checkpoint.check(Options(values, tmp_path), stored, tmp_path)


@pytest.mark.parametrize("family", DEFAULTS)
def test_options_that_are_left_out_are_those_of_the_library(family):
    checkpoint = Checkpoint.open(GOLDEN / family)

    def built(options):
        names = frozenset(checkpoint.tensors)
        return eqx.filter_eval_shape(checkpoint.family.build, Options(options, GOLDEN), names)

    rest = {x: y for x, y in checkpoint.options.values.items() if x not in DEFAULTS[family]}
    assert eqx.tree_equal(built(rest), built(rest | DEFAULTS[family]))


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("llama", dict(model_type="mamba"), "model_type = 'mamba' is not supported.*gpt2"),
        ("llama", dict(num_key_value_heads=3), "attention_heads = 4 is not a multiple of nu"),
        ("llama", dict(head_dim=5), "5 of the 5 features of a head.*head_dim"),
        ("llama", dict(rope_scaling=YARN), "rope_type = 'yarn' is not supported.*llama3"),
        (
            "llama",
            dict(rope_scaling=LLAMA3 | dict(low_freq_factor=2)),
            "low_freq_factor = 2.0 is",
        ),
        ("roberta", dict(pad_token_id=23), "max_position_embeddings = 24 is not above 24"),
        # The library takes 1e-12 whatever the file says.
        ("distilbert", dict(layer_norm_eps=1e-5), "layer_norm_eps = 1e-05: not known"),
        # An option is named as the file calls it.
        ("distilbert", dict(dim=None), r"config\.json has no dim,"),
        ("t5", dict(dense_act_fn="gelu_new"), "dense_act_fn = 'gelu_new' is not the 'relu' of"),
        ("t5", dict(relative_attention_num_buckets=3), "num_buckets = 3 is not supported"),
        ("vit", dict(image_size=2), r"write the size without them, \[4, 4\]"),
        ("vit", dict(image_size=10), r"not a multiple of patch_size = 4.*write .*\[8, 8\]"),
        ("vit", dict(patch_size=[4, 2]), r"patch_size = \[4, 2\] is not supported"),
        ("dinov2", dict(image_size=[4, 16]), "positions of DINOv2 lie on a square"),
        ("dinov2", dict(mlp_ratio=1e300), "mlp_ratio = 1e.300 is out of range"),
        ("cvt", dict(cls_token=[True, True]), r"cls_token\[0\] = True is not .*: False"),
        ("cvt", dict(kernel_qkv=[5, 3]), r"padding_q\[0\] = 1 is not supported. Supported: 2"),
        ("cvt", dict(kernel_qkv=[2, 3]), r"kernel_qkv\[0\] = 2 is even"),
        ("cvt", dict(patch_padding=[0, 1]), "window=5, stride=2, padding=0 do not give"),
    ],
)
def test_options_that_do_not_fit_are_named(family, options, message, tmp_path):
    with pytest.raises(ide.InputError, match=message):
        load_pretrained(changed_copy(tmp_path, family, **options))


def test_only_a_pooler_that_is_there_has_an_activation(tmp_path):
    def with_pooler(tensors):
        pooler = dict(weight=np.zeros((8, 8)), bias=np.zeros(8))
        return tensors | {f"vit.pooler.dense.{name}": x for name, x in pooler.items()}

    with pytest.raises(ide.InputError, match="pooler_act = 'relu' is not supported"):
        load_pretrained(changed_copy(tmp_path / "one", "vit", with_pooler, pooler_act="relu"))
    model = load_pretrained(changed_copy(tmp_path / "two", "vit", pooler_act="relu"))
    assert not hasattr(model.read_out, "pooler")


def test_activations_that_a_file_does_not_name_right(tmp_path):
    gemma = load_pretrained(GOLDEN / "gemma")
    for legacy in ("gelu", None):
        folder = changed_copy(tmp_path, "gemma", hidden_act=legacy, hidden_activation=None)
        assert eqx.tree_equal(load_pretrained(folder), gemma)
    model = load_pretrained(changed_copy(tmp_path, "roberta", hidden_act="relu"))
    assert model.control.blocks[1].activation is ide.relu
    assert model.read_out.head.activation is ide.gelu


def test_waves_are_stretched_where_they_are_long(tmp_path):
    def stretch_of(family, **options):
        model = load_pretrained(changed_copy(tmp_path, family, **options))
        return model.control.blocks[0].positions

    rope = LLAMA3 | dict(rope_theta=500.0)
    found = stretch_of("qwen3", rope_parameters=rope).stretch
    turns = 16 / (2 * np.pi * 500.0 ** (np.arange(4) / 4))  # in the context of the training
    assert turns[0] > 1.5 and 0.5 < turns[1] < 1.5 and turns[2] < 0.5
    share = turns[1] - 0.5
    assert np.allclose(found, [1, 1 / ((1 - share) / 8 + share), 8, 8])
    assert stretch_of("llama", rope_scaling=LINEAR | dict(factor=2.0)).stretch == (2.0, 2.0)
    assert stretch_of("llama", partial_rotary_factor=1.0).stretch is None
    neox = stretch_of("gpt_neox", rope_parameters=None, rotary_pct=1.0, rotary_emb_base=50.0)
    assert (neox.base, neox.features) == (50.0, None)


def test_images_have_a_side_that_the_strides_of_cvt_divide(tmp_path):
    stages = load_pretrained(changed_copy(tmp_path, "cvt", patch_stride=[4, 3])).equations
    # 4·2 for the keys of the first stage, 4·3 for the second.
    assert stages[0].inputs.image_shape == (240, 240, 3)
    assert stages[1].inputs.windows.image_shape == (60, 60, 4)


def window_of(folder):
    return load_pretrained(folder).control.blocks[0].region.window


def test_windows_of_mistral(tmp_path):
    assert window_of(changed_copy(tmp_path, "mistral")) == 4
    assert window_of(changed_copy(tmp_path, "mistral", sliding_window=None)) == 4096
    options = options_of("mistral") | dict(sliding_window=None)
    (tmp_path / "config.json").write_text(json.dumps(options))
    assert window_of(tmp_path) is None


@pytest.mark.parametrize(
    ("family", "options", "window"),
    [
        ("qwen2", dict(layer_types=["sliding_attention"] * 2), 4),
        ("qwen3", dict(layer_types=["full_attention"] * 2, max_window_layers=0), None),
        ("qwen2", dict(layer_types=None, max_window_layers=0), 4),
        # The default is 28.
        ("qwen2", dict(layer_types=None, max_window_layers=None), None),
        ("qwen3", dict(layer_types=None, max_window_layers=0, sliding_window=None), 4096),
    ],
)
def test_windows_of_qwen(family, options, window, tmp_path):
    assert window_of(changed_copy(tmp_path, family, **WINDOW | options)) == window
