"""Checkpoints of models with fewer layers, and with other step sizes."""

import json

import equinox as eqx
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer.dynamics import in_layers, keep_layers
from ide_transformer.pretrained import load_pretrained, save_pretrained
from tests.golden.cases import CASES
from tests.golden.copies import make_archive, tensors_of
from tests.helpers import GOLDEN, drawn, largest
from tests.models import examples as small
from tests.pretrained.test_every_family import FAMILIES, outputs_for, stored


def rescaled(model, layers=None):
    """The model with only some layers, and a random step size for each feature and operator."""
    shorter = in_layers(model) if layers is None else keep_layers(model, layers)
    width = shorter.control.blocks[0].innermost.output.weight.shape[-1]
    operators = [x.operator for x in shorter.control.blocks]
    rates = [drawn((shorter.layers, width), seed) for seed in range(len(operators))]
    blocks = tuple(map(ide.equation.Scaled, operators, rates))
    return eqx.tree_at(lambda m: m.control.blocks, shorter, blocks)


# Post-norm, with a list of the kinds of layers, with step sizes of its own.
@pytest.mark.filterwarnings("ignore:.*not part of the model")
@pytest.mark.parametrize("family", ["bert", "qwen2", "dinov2"])
def test_a_rescaled_last_layer_is_a_checkpoint(family, tmp_path):
    inputs, _ = stored(family)
    outputs = outputs_for(inputs)
    native = load_pretrained(GOLDEN / family, dtype="float64")
    model = native.each_equation(lambda stage: rescaled(stage, [stage.layers - 1]))
    save_pretrained(model, tmp_path / "new", like=GOLDEN / family)
    again = load_pretrained(tmp_path / "new")
    assert {stage.layers for stage in again.equations} == {1}
    expected, loaded = outputs(model), outputs(again)
    assert max(largest(expected[name], loaded[name]) for name in expected) < 1e-12
    # Nothing is left of the other layer.
    names = "\n".join(tensors_of(tmp_path / "new"))
    assert ".0." in names and ".1." not in names


def test_of_all_formats(tmp_path):
    make_archive(tmp_path / "whole.npz", vocabulary=11)
    changes = [
        (tmp_path / "whole.npz", lambda m: rescaled(m, [0])),
        (GOLDEN / "albert", lambda m: keep_layers(m, [1])),
    ]
    for source, change in changes:
        model = change(load_pretrained(source))
        at = tmp_path / f"new-{source.name}"
        save_pretrained(model, at, like=source)
        again = load_pretrained(at)
        assert again.layers == model.layers
        loaded, expected = (small.outputs_of(x, np.arange(4)) for x in (again, model))
        assert largest(loaded, expected) < 1e-5 * np.abs(expected).max()


def test_a_stage_of_cvt_keeps_the_layers_that_the_library_needs(tmp_path):
    native = load_pretrained(GOLDEN / "cvt")
    save_pretrained(native.each_equation(rescaled), tmp_path / "new", like=GOLDEN / "cvt")
    assert [x.layers for x in load_pretrained(tmp_path / "new").equations] == [1, 2]
    with pytest.raises(ide.InputError, match=r"stage 1 .*1 layers"):
        save_pretrained(keep_layers(native, [1]), tmp_path / "other", like=GOLDEN / "cvt")


def test_the_decoder_that_is_not_read_keeps_its_layers(tmp_path):
    model = keep_layers(load_pretrained(GOLDEN / "t5"), [1])
    save_pretrained(model, tmp_path / "new", like=GOLDEN / "t5")
    options = json.loads((tmp_path / "new/config.json").read_text())
    assert (options["num_layers"], options["num_decoder_layers"]) == (1, 2)


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore")
def test_the_library_loads_every_family_with_one_layer(tmp_path, make):
    """All tensors have their places, and options fit each other. The second stage of the golden
    CvT has the fewest layers that the library reads."""
    for family in FAMILIES:
        if family == "cvt":
            continue
        native = load_pretrained(GOLDEN / family)
        shorter = native.each_equation(lambda stage: keep_layers(stage, [stage.layers - 1]))
        save_pretrained(shorter, tmp_path / family, like=GOLDEN / family)
        kind = getattr(make.transformers, CASES[family].model)
        options = dict(local_files_only=True, output_loading_info=True)
        _, report = kind.from_pretrained(tmp_path / family, **options)
        assert not any(report.values()), (family, report)
