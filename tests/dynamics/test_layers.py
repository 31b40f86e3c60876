"""Models as lists of layers, of which some are kept."""

import pytest
from helpers import fast_first, largest
from layered_models import LAYERS, by_hand, layer_by_layer, model_of, outputs

import ide_transformer as ide
from ide_transformer.dynamics import keep_layers
from ide_transformer.dynamics.layers import in_layers


@pytest.mark.parametrize("name", fast_first(1, ["free", "post-norm", "tied"]))
def test_layers_are_the_model_and_may_be_left_out(name):
    model = model_of(name)
    layers = in_layers(model)
    assert largest(outputs(layers), outputs(model)) < 1e-12
    kept = keep_layers(model, [0, 2, 3])
    assert largest(outputs(kept), by_hand(model, layer_by_layer([0, 2, 3]))) < 1e-12


@pytest.mark.parametrize("name", ["free", "post-norm"])
def test_layers_of_a_finer_mesh_are_the_model(name):
    """The beginning of interval 7, divided by the length of an interval, is rounded to below 7
    in float64."""
    model = model_of(name).on(ide.Mesh(intervals=9))
    assert largest(outputs(in_layers(model)), outputs(model)) < 1e-12


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("layers", [[2, 1], [0, LAYERS], []])
def test_layers_out_of_order_or_beyond_the_last_are_refused(layers):
    with pytest.raises(ide.InputError, match="once and in order"):
        keep_layers(model_of(), layers)
