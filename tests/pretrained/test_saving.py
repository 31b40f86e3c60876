"""Checkpoints written back, and what their layout cannot hold."""

import json
import re

import diffrax
import equinox as eqx
import numpy as np
import pytest
from golden.copies import changed_copy, make_archive, options_of, tensors_of
from helpers import GOLDEN

import ide_transformer as ide
from ide_transformer.pretrained import families, load_pretrained, save_pretrained


FAMILIES = sorted(set(families()) - {"glassllm"})
# Queries are stored multiplied by sqrt(d), gains without the 1.
ROUNDED = ("gemma", "t5")


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_written_is_what_was_read(family, tmp_path):
    save_pretrained(load_pretrained(GOLDEN / family), tmp_path, like=GOLDEN / family)
    written, before = tensors_of(tmp_path), tensors_of(GOLDEN / family)
    ours = families()[family]
    assert written.keys() <= before.keys()
    for name in before.keys() - written.keys():
        assert re.fullmatch(ours.ignored, ours.canonical(name))
    for name, x in written.items():
        assert np.abs(before[name] - x).max() <= (1e-6 if family in ROUNDED else 0)
    assert json.loads((tmp_path / "config.json").read_text()) == options_of(family)


def test_archives_of_glassllm_are_read_and_written(tmp_path):
    options, arrays = make_archive(tmp_path / "one.npz", vocabulary=11)
    model = load_pretrained(tmp_path / "one.npz")
    save_pretrained(model, tmp_path / "two.npz", like=tmp_path / "one.npz")
    written = dict(np.load(tmp_path / "two.npz"))
    assert json.loads(str(written.pop("__config__"))) == options
    assert written.keys() == arrays.keys()
    assert all((written[name] == x).all() for name, x in arrays.items())
    assert eqx.tree_equal(load_pretrained(tmp_path / "two.npz"), model)


def test_what_the_layout_cannot_hold_is_not_written(tmp_path):
    model = load_pretrained(GOLDEN / "llama")
    strang = model.with_solver(ide.Strang())
    with pytest.raises(ide.InputError, match=r"is solved by Strang.*always by LieTrotter"):
        save_pretrained(strang, tmp_path / "new", like=GOLDEN / "llama")
    with pytest.raises(ide.InputError, match=r"holds a TextEncoder, but the model is a Lang"):
        save_pretrained(model, tmp_path / "new", like=GOLDEN / "bert")
    with pytest.raises(ide.InputError, match=r"q_norm.weight: none here, \(8,\) there"):
        save_pretrained(model, tmp_path / "new", like=GOLDEN / "qwen3")
    smooth = eqx.tree_at(lambda m: m.control, model, ide.PiecewiseLinear(model.control.blocks))
    with pytest.raises(ide.InputError, match=r"are a PiecewiseLinear over depth"):
        save_pretrained(smooth, tmp_path / "new", like=GOLDEN / "llama")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ide.InputError, match="is there already"):
        save_pretrained(model, tmp_path / "full", like=GOLDEN / "llama")
    assert not (tmp_path / "new").exists()


def test_each_model_inside_is_solved_by_its_own_scheme(tmp_path):
    model = load_pretrained(GOLDEN / "whisper")
    encoder = model.encoder.with_solver(diffrax.Heun())
    for other in (model.with_solver(diffrax.Heun()), model.with_encoder(encoder)):
        with pytest.raises(ide.InputError, match="solved by Heun"):
            save_pretrained(other, tmp_path / "saved", like=GOLDEN / "whisper")


def test_weights_that_are_one_tensor_must_be_equal_to_be_written(tmp_path):
    model = load_pretrained(GOLDEN / "gptj")
    gain = model.control.blocks[0].normalization.gain
    trained = eqx.tree_at(lambda m: m.control.blocks[0].normalization.gain, model, 2 * gain)
    with pytest.raises(ide.InputError, match=r"h\.0\.ln_1\.weight is one tensor"):
        save_pretrained(trained, tmp_path / "new", like=GOLDEN / "gptj")


def test_heads_that_the_layout_cannot_hold_are_not_written(tmp_path):
    model = load_pretrained(GOLDEN / "vit")
    heads = ide.NoHead(), ide.PrefixHead(model.head.classifiers * 2)
    for other in (model.resized((12, 8)), *map(model.with_head, heads)):
        with pytest.raises(ide.InputError, match="The weights of the model are not those of"):
            save_pretrained(other, tmp_path / "new", like=GOLDEN / "vit")

    def without_head(tensors):
        return {name: x for name, x in tensors.items() if "classifier" not in name}

    bare = changed_copy(tmp_path / "bare", "vit", without_head)
    other = load_pretrained(bare).with_head(ide.PrefixAndMeanHead(*model.head.classifiers))
    with pytest.raises(ide.InputError, match=r"\(8, 3\): no place"):
        save_pretrained(other, tmp_path / "new", like=bare)
    assert not (tmp_path / "new").exists()
