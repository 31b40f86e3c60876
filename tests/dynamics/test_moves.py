"""Models as lists of layers, of which some are kept; each move makes the mesh that it says."""

import itertools

import diffrax
import equinox as eqx
import numpy as np
from helpers import drawn, largest
from layered_models import HELD_OUT, LAYERS, by_hand, layer_by_layer, model_of, outputs

import ide_transformer as ide
from ide_transformer.dynamics import (
    drops,
    extensions,
    extrapolated,
    keep_layers,
    mergers,
    native_layers,
    refine,
    richardson,
)
from ide_transformer.dynamics.layers import in_layers


def test_layers_are_the_model_and_may_be_left_out():
    """Also on a finer mesh: the beginning of interval 7, divided by the length of an interval,
    is rounded to below 7 in float64."""
    model = model_of("tied")
    finer = model.on(ide.Mesh(intervals=9))
    assert largest(outputs(in_layers(finer)), outputs(finer)) < 1e-12
    kept = outputs(keep_layers(model, [0, 2, 3]))
    assert largest(kept, by_hand(model, layer_by_layer([0, 2, 3]))) < 1e-12


def test_neighbouring_operators_are_left_out():
    model = model_of("post-norm")
    coarse = list(drops(native_layers(model)))
    whole = layer_by_layer(range(LAYERS))
    assert len(coarse) == len(whole) - 1
    for first in (0, 3):
        exact = by_hand(model, whole[:first] + whole[first + 2 :])
        assert largest(outputs(coarse[first].model), exact) < 1e-12
    assert coarse[3].steps.tolist() == [["0", "0"], ["1", "2"], ["3", "3"]]


def test_an_extension_makes_the_step_before_longer():
    layered = list(extensions(native_layers(model_of())))[2]
    steps = [
        (layer, index, h) for layer, h in ((0, 2.0), (2, 1.0), (3, 1.0)) for index in (0, 1)
    ]
    assert largest(outputs(layered.model), by_hand(model_of(), steps)) < 1e-12


def test_layers_that_came_of_halving_merge_into_the_native_ones():
    model = keep_layers(model_of(), [0, 1])
    halves = model.control.resample(4), model.constraint.resample(4)
    halved = eqx.tree_at(lambda m: (m.control, m.constraint), model, halves)
    layered = native_layers(halved)
    for pair in range(2):
        layered = next(itertools.islice(mergers(layered), pair, None))
    assert layered.steps[:, 0].tolist() == ["0+1", "2+3"]
    assert largest(outputs(layered.model), outputs(model)) < 1e-12
    assert largest(outputs(halved), outputs(model)) > 1e-3


def test_an_extrapolated_model_is_that_of_two_refined_ones():
    model = model_of()
    state = eqx.filter_jit(lambda model: model.solve(HELD_OUT).u1)
    coarse, fine = (np.asarray(state(refine(model, k))) for k in (2, 4))
    expected = eqx.filter_jit(lambda u: model.outputs(u))(2 * fine - coarse)
    assert largest(richardson(model, 2, HELD_OUT), expected) < 1e-12
    second = model_of().with_solver(ide.Strang(diffrax.Heun()))
    coarse, fine = drawn((2, 3), 0)
    assert largest(extrapolated(second, coarse, fine), (4 * fine - coarse) / 3) < 1e-12
