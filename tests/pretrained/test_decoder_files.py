"""Options and tensors of the files of decoders: read as they are meant, or refused by name."""

import json
import math

import equinox as eqx
import numpy as np
import pytest
from golden.copies import changed_copy, options_of
from helpers import GOLDEN
from pretrained.option_fuzz import check_refused

import ide_transformer as ide
from ide_transformer.pretrained import families, load_pretrained


FAMILIES = ("gemma", "gpt2", "gpt_neox", "gptj", "llama", "mistral", "qwen2", "qwen3")
# As users run it: the checks of annotations would speak before the package does.
pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.mark.parametrize("family", FAMILIES)
def test_values_of_another_kind_are_refused_by_name(family, tmp_path):
    folder = changed_copy(tmp_path, family)
    options = options_of(family)
    sizes = [name for name in options if name.startswith(("n_", "num_", "hidden_s", "vocab"))]
    epsilon = next(name for name in options if "eps" in name)
    wrong = [(name, value) for name in sizes for value in (0, 2.0, "2", True)]
    wrong += [(epsilon, value) for value in (0, -1e-5, math.nan, True, "1e-5")]
    wrong += [("tie_word_embeddings", value) for value in (1, None)]
    wrong += [("quantization_config", {"bits": 4}), ("pruned_heads", {"0": [1]})]
    wrong += [("an_option_of_tomorrow", 1)]
    assert len(sizes) > 3
    check_refused(folder, options, wrong)


@pytest.mark.parametrize(
    ("family", "options", "name"),
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
        ("llama", dict(num_hidden_layers=2**24), "num_hidden_layers = 16777216 is no whole"),
        ("llama", dict(num_hidden_layers=900), "a weight of shape .*numbers in all"),
        (
            "qwen3",
            dict(layer_types=["full_attention"]),
            "layer_types = .*2 layers .num_hidden_layers",
        ),
        ("qwen2", dict(layer_types=["sliding_attention"] * 2), "layer_types"),
        ("gemma", dict(use_bidirectional_attention=True), "use_bidirectional_attention = True"),
        ("gemma", dict(hidden_activation="gelu"), "hidden_activation = 'gelu' is not supp"),
    ],
)
def test_options_that_do_not_fit_are_named(family, options, name, tmp_path):
    with pytest.raises(ide.InputError, match=name):
        load_pretrained(changed_copy(tmp_path, family, **options))


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
