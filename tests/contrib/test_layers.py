"""Models as lists of layers: what each does in one step, the error of leaving it out, predicted
and measured, moves that keep some, and the search for coarser meshes."""

import itertools

import diffrax
import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import contrib
from ide_transformer.contrib import (
    coarsen,
    coarsenings,
    drops,
    extensions,
    extrapolated,
    fit_rates,
    keep_operators,
    least_turned,
    mergers,
    native_layers,
    native_target,
    refine,
    removal_estimate,
    replace_layers,
)
from ide_transformer.contrib.layers import in_layers
from ide_transformer.contrib.meshes import field_evaluations, relative_error, zero_padding
from ide_transformer.dynamics import keep_layers
from tests.helpers import TOKENS, WIDTH, built_control, drawn, largest, random_state
from tests.layered_models import (
    CALIBRATION,
    HELD_OUT,
    LAYERS,
    by_hand,
    layer_by_layer,
    mean_over_tokens,
    model_of,
    outputs,
    simple_block,
    states_by_hand,
)


equation_defects = eqx.filter_jit(contrib.equation_defects)

U0, LENGTH, SEEN = random_state(2), 0.5, 4
HEUN, KNOTS = diffrax.Heun(), diffrax.SaveAt(ts=LENGTH * np.arange(4.0))


def equation_of(opposite=False):
    """On intervals that are shorter than layers; the last tokens are padding."""
    blocks = built_control(simple_block, 3).blocks[:: -1 if opposite else 1]
    domain = ide.TokenDomain.uniform(TOKENS).padded(np.arange(TOKENS) < SEEN)
    return ide.Equation(ide.PiecewiseConstant(blocks, LENGTH), ide.Free(), domain)


@eqx.filter_jit
def layer_states(equation, solver, steps):
    solution = ide.solve(equation, U0, solver=solver, steps_per_interval=steps, saveat=KNOTS)
    return solution.us[:, :, :SEEN]


def test_defects_are_those_of_the_states_of_solves():
    """And the block influence is the mean over tokens of one minus the cosine."""

    def states(solver, steps, **options):
        return np.asarray(layer_states(equation_of(**options), solver, steps))

    def size(x):
        return np.sqrt(np.mean(np.square(x), axis=(-1, -2, -3)))

    us = states(ide.Strang(HEUN), 2)
    found = equation_defects(equation_of(), U0, solver=ide.Strang(HEUN), steps_per_interval=2)
    steps, sizes = np.diff(us, axis=0), size(us[:-1])
    assert largest(found.state, sizes) < 1e-12
    assert largest(found.increment, size(steps) / sizes) < 1e-12
    first, second = steps[0].ravel(), steps[1].ravel()
    cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    assert np.isnan(found.alignment[0]) and abs(found.alignment[1] - cosine) < 1e-12
    norms = np.linalg.norm(us, axis=-1)
    cosines = np.sum(us[0] * us[1], axis=-1) / (norms[0] * norms[1])
    assert abs(found.turn[0] - np.mean(1 - cosines)) < 1e-12

    plain, opposite = (states(ide.LieTrotter(HEUN), 2, opposite=x) for x in (False, True))
    expected = {
        "step_doubling": size(states(ide.Strang(HEUN), 4) - us),
        "splitting": size(plain - us),
        "commutator": size(plain - opposite) / (LENGTH * LENGTH / 2),
    }
    for name, sizes_after in expected.items():
        assert abs(getattr(found, name)[0] - sizes_after[1] / sizes[0]) < 1e-12, name


def removal_damage(model):
    """The error without each layer, measured."""
    every = range(LAYERS)
    error = native_target(keep_layers(model, every), HELD_OUT, mean_over_tokens).error
    return [float(error(keep_layers(model, [n for n in every if n != i]))) for i in every]


def test_the_estimate_is_exact_for_small_defects():
    """The linearised march is the march, to first order in what is left out."""
    errors = []
    for size in (0.1, 0.01):
        model = model_of(scales=(1.0, size, 1.0, 1.0))
        estimate = removal_estimate(model, HELD_OUT, mean_over_tokens)[1]
        errors.append(abs(estimate / removal_damage(model)[1] - 1))
    assert errors[1] < 0.2 * errors[0] < 0.02
    nothing = model_of(scales=(1.0, 0.0, 1.0, 1.0))
    estimate = np.asarray(removal_estimate(nothing, HELD_OUT, mean_over_tokens))
    damage = removal_damage(nothing)
    assert estimate[1] == damage[1] == 0 < min(np.delete(estimate, 1))


def test_layers_are_the_model_and_may_be_left_out():
    """Also on a finer mesh: the beginning of interval 7, divided by the length of an interval,
    is rounded to below 7 in float64."""
    model = model_of("tied")
    finer = model.on(ide.Mesh(layers=9))
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


def test_operators_that_are_left_follow_each_other():
    """In as few layers as hold them."""
    model = model_of()
    kept = keep_operators(model, [[0, 1, 3], [0, 3]])
    sequence = [(0, 0), (0, 1), (1, 0), (3, 0), (3, 1)]
    assert kept.layers == 3 and largest(outputs(kept), by_hand(model, sequence)) < 1e-12
    # A norm cannot be left out; here each layer has both.
    model = model_of("post-norm")
    exact = by_hand(model, [(0, 0), (1, 1), (2, 0), (2, 1)])
    assert largest(outputs(keep_operators(model, [[0, 2], [1, 2]])), exact) < 1e-12
    with pytest.raises(
        ide.InputError, match=r"its norm, LayerNorm, stays; give lists that alt"
    ):
        keep_operators(model, [[0, 1], [0]])


def test_a_map_of_the_feed_forward_replaces_layers():
    """ReplaceMe by its formula, without padding, for a layer with step sizes."""
    model = in_layers(model_of("attention"))
    rate = drawn((LAYERS, WIDTH), 7)
    feed_forward = ide.equation.Scaled(model.control.blocks[1].operator, rate)
    model = eqx.tree_at(lambda m: m.control.blocks[1], model, feed_forward)
    mask = np.arange(8) < [[8], [6], [8], [5]]
    text = ide.Text(HELD_OUT, mask)
    states = states_by_hand(model, layer_by_layer(range(LAYERS)), text)
    y, after, last = (np.asarray(states[n])[mask] for n in (1, 2, 2 * LAYERS))
    m = after - y
    matrix = np.linalg.solve(m.T @ m, m.T @ (last - y))
    replaced = replace_layers(model, [1, 2, 3], text)
    assert replaced.layers == 1
    expected = model.outputs((y + m @ matrix)[None])[0]
    assert largest(outputs(replaced, text)[mask], expected) < 1e-9
    with pytest.raises(ide.InputError, match=r"replace_layers: layers=\[0, 1\]: give neighbou"):
        replace_layers(model, [0, 1], text)
    with pytest.raises(
        ide.InputError, match="replace_layers: 8 tokens do not determine a map of"
    ):
        replace_layers(model, [1], HELD_OUT[:1])
    # Layers that do nothing turn nothing.
    scales = np.array([1.0, 1.0, 0.0, 0.0])
    idle = eqx.tree_at(lambda m: m.rate, feed_forward, scales[:, None] * rate)
    resting = eqx.tree_at(
        lambda m: (m.control.blocks[0].rate, m.control.blocks[1]),
        model,
        (jnp.asarray(scales), idle),
    )
    assert least_turned(resting, 2, text) == range(2, 4)


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
    found = model.outputs(extrapolated(model, coarse, fine))
    assert largest(found, expected) < 1e-12
    second = model_of().on(ide.Mesh(solver=ide.Strang(diffrax.Heun())))
    coarse, fine = drawn((2, 3), 0)
    assert largest(extrapolated(second, coarse, fine), (4 * fine - coarse) / 3) < 1e-12


def test_padded_tokens_do_not_enter_an_error():
    domain = ide.TokenDomain.uniform(6)
    y = np.random.default_rng(0).normal(size=(2, 6, 3))
    worse = y + (np.arange(6) >= 4)[:, None]
    errors = [
        relative_error(*(zero_padding(jnp.asarray(x), where) for x in (worse, y)))
        for where in (domain.padded(jnp.arange(6) < 4), domain)
    ]
    exact = np.linalg.norm(worse - y) / np.linalg.norm(y)
    assert errors[0] == 0 and abs(errors[1] - exact) < 1e-12


def test_a_layer_that_does_nothing_goes_first():
    """The other layers cost the budget, and are an ordinary model."""
    model = model_of(scales=(1.0, 0.0, 1.0, 1.0))
    assert coarsen(model, float(LAYERS), CALIBRATION) is model
    native, first = itertools.islice(coarsenings(model, CALIBRATION, fit=None), 2)
    assert (native.evaluations, first.evaluations) == (LAYERS, LAYERS - 1)
    assert first.steps[:, 0].tolist() == ["0", "2", "3"] and first.error < 1e-12
    assert largest(outputs(first.model), outputs(model)) < 1e-12
    coarse = coarsen(model, 3.5, CALIBRATION, fit=None)
    assert field_evaluations(coarse, HELD_OUT) == 3
    with pytest.raises(ide.InputError, match=r"evaluations=0\.5.*makes 1 with LieTrotter"):
        coarsen(model, 0.5, CALIBRATION)


@pytest.mark.heavy
def test_fitted_step_sizes_lessen_the_error_also_on_other_inputs():
    model, read = model_of("post-norm"), mean_over_tokens
    coarse = keep_layers(model, [0, 1, 3])
    many = np.random.default_rng(5).integers(11, size=(24, HELD_OUT.shape[1]))
    target = native_target(model, many, read)
    fitted = fit_rates(coarse, target, steps=24, batch=8)
    assert fitted.control.blocks[0].rate.shape == (3, WIDTH)
    for judge in (target, native_target(model, HELD_OUT, read)):
        assert judge.error(fitted) < 0.9 * judge.error(coarse)
