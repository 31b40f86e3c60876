"""Models as lists of layers, moves that keep some, the search for coarser meshes, windows that
are walked in several steps, and distances of heads."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import contrib
from ide_transformer.contrib import coarsen, native_layers, native_target, replace_layers
from ide_transformer.contrib.layers import in_layers
from ide_transformer.contrib.meshes import field_evaluations, relative_error, zero_padding
from ide_transformer.contrib.windows import walks
from ide_transformer.dynamics import keep_layers
from tests.helpers import HEADS, WIDTH, drawn, largest
from tests.layered_models import (
    CALIBRATION,
    CONTEXT,
    HELD_OUT,
    LAYERS,
    _step,
    by_hand,
    layer_by_layer,
    mean_over_tokens,
    model_of,
    outputs,
    states_by_hand,
)
from tests.published.numpy_blocks import layer_norm, linear, softmax_kernel
from tests.running import run_here


def test_layers_are_the_model_and_may_be_left_out():
    """Also on a finer mesh: the beginning of interval 7, divided by the length of an interval,
    is rounded to below 7 in float64."""
    model = model_of("tied")
    finer = model.on(ide.Mesh(layers=9))
    assert largest(outputs(in_layers(finer)), outputs(finer)) < 1e-12
    shorter = outputs(keep_layers(model, [0, 2, 3]))
    assert largest(shorter, by_hand(model, layer_by_layer([0, 2, 3]))) < 1e-12


def test_neighbouring_operators_are_left_out():
    model = model_of("post-norm")
    coarse = list(contrib.drops(native_layers(model)))
    native = layer_by_layer(range(LAYERS))
    assert len(coarse) == len(native) - 1
    for first in (0, 3):
        exact = by_hand(model, native[:first] + native[first + 2 :])
        assert largest(outputs(coarse[first].model), exact) < 1e-12
    assert coarse[3].steps.tolist() == [["0", "0"], ["1", "2"], ["3", "3"]]


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
    with pytest.raises(ide.InputError, match=r"replace_layers: layers=\[0, 1\]"):
        replace_layers(model, [0, 1], text)
    with pytest.raises(ide.InputError, match=r"replace_layers: .*8 tokens"):
        replace_layers(model, [1], HELD_OUT[:1])


def test_an_extension_makes_the_step_before_longer():
    layered = list(contrib.extensions(native_layers(model_of())))[2]
    longer = [(0, 2.0), (2, 1.0), (3, 1.0)]
    steps = [(layer, index, h) for layer, h in longer for index in (0, 1)]
    assert largest(outputs(layered.model), by_hand(model_of(), steps)) < 1e-12


def test_layers_that_came_of_halving_merge_into_the_native_ones():
    model = keep_layers(model_of(), [0, 1])
    halves = model.control.resample(4), model.constraint.resample(4)
    halved = eqx.tree_at(lambda m: (m.control, m.constraint), model, halves)
    layered = native_layers(halved)
    for pair in range(2):
        layered = next(itertools.islice(contrib.mergers(layered), pair, None))
    assert layered.steps[:, 0].tolist() == ["0+1", "2+3"]
    assert largest(outputs(layered.model), outputs(model)) < 1e-12
    assert largest(outputs(halved), outputs(model)) > 1e-3


def test_padded_tokens_do_not_enter_an_error():
    domain = ide.TokenDomain.uniform(6)
    y = np.random.default_rng(0).normal(size=(2, 6, 3))
    worse = y + (np.arange(6) >= 4)[:, None]

    def error(where):
        return relative_error(*(zero_padding(jnp.asarray(x), where) for x in (worse, y)))

    assert error(domain.padded(jnp.arange(6) < 4)) == 0
    exact = np.linalg.norm(worse - y) / np.linalg.norm(y)
    assert abs(error(domain) - exact) < 1e-12


def test_a_layer_that_does_nothing_goes_first():
    model = model_of(scales=(1.0, 0.0, 1.0, 1.0))
    assert coarsen(model, float(LAYERS), CALIBRATION) is model
    native, first = itertools.islice(contrib.coarsenings(model, CALIBRATION, fit=None), 2)
    assert (native.evaluations, first.evaluations) == (LAYERS, LAYERS - 1)
    assert first.steps[:, 0].tolist() == ["0", "2", "3"] and first.error < 1e-12
    assert largest(outputs(first.model), outputs(model)) < 1e-12
    coarse = coarsen(model, 3.5, CALIBRATION, fit=None)
    assert field_evaluations(coarse, HELD_OUT) == 3
    with pytest.raises(ide.InputError, match=r"evaluations=0\.5"):
        coarsen(model, 0.5, CALIBRATION)


@pytest.mark.heavy
def test_fitted_step_sizes_lessen_the_error_also_on_other_inputs():
    model, read = model_of("post-norm"), mean_over_tokens
    coarse = keep_layers(model, [0, 1, 3])
    many = np.random.default_rng(5).integers(11, size=(24, HELD_OUT.shape[1]))
    target = native_target(model, many, read)
    fitted = contrib.fit_rates(coarse, target, steps=24, batch=8)
    assert fitted.control.blocks[0].rate.shape == (3, WIDTH)
    for judge in (target, native_target(model, HELD_OUT, read)):
        assert judge.error(fitted) < 0.9 * judge.error(coarse)


FIRST, END = 1, 3


def through(model, u, layers):
    _, domain = model.embed(HELD_OUT)
    for layer in layers:
        for index in (0, 1):
            u = _step(model, jnp.asarray(float(layer)), index, jnp.asarray(1.0), u, domain)
    return u


def walked_by_hand(model, walk):
    windows = [range(FIRST, END)]
    if walk.by_layer:
        windows = [[layer] for layer in range(FIRST, END)]
    u = through(model, model.embed(HELD_OUT)[0], range(FIRST))
    h = walk.length / walk.steps
    for window in windows:
        v = u
        for _ in range(walk.steps):
            once = through(model, v, window)
            if walk.heun:
                second = v + h * (once - v)
                v = v + h / 2 * (once - v + through(model, second, window) - second)
            else:
                v = (1 - h) * v + h * once
        u = walk.anchor * through(model, u, window) + (1 - walk.anchor) * v
    return through(model, u, range(END, LAYERS))


@pytest.mark.parametrize("name", walks(2))
def test_windows_are_walked_by_their_formulas(name):
    model = model_of("post-norm")
    walk = walks(2)[name]
    end = contrib.walked_state(model, HELD_OUT, jnp.asarray(FIRST), jnp.asarray(END), walk)
    assert largest(end, walked_by_hand(model, walk)) < 1e-12


@pytest.mark.heavy
def test_the_command_walks_the_windows_of_a_run_on_a_text(tiny_run, tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("the cat and the dog. " * 200)
    options = "--calibration", 2, "--held-out", 2, "--out", tmp_path, "--text", text
    run_here(capsys, "depth", tiny_run, "--windows", 2, *options)
    assert (tmp_path / "windows/report.json").exists()


def kernel_by_hand(attention, u):
    """`[heads, tokens, others]` of one sample."""
    v = layer_norm(u)
    maps = attention.query, attention.key
    query, key = (linear(x, v).reshape(len(v), HEADS, -1).swapaxes(0, 1) for x in maps)
    mass = softmax_kernel(query, key) * np.tri(len(v))
    return mass / mass.sum(-1, keepdims=True)


def test_distances_of_heads_are_those_of_numpy():
    model = model_of("attention")
    mask = np.arange(CONTEXT) < np.array([[8], [6], [8], [5]])
    text = ide.Text(HELD_OUT, mask)
    distances = contrib.distances(model, text)
    assert distances.bands.tolist() == [0, 1, 2, 4]
    apart = np.abs(np.subtract.outer(np.arange(CONTEXT), np.arange(CONTEXT)))
    states = states_by_hand(model, layer_by_layer(range(LAYERS)), text)[:-1:2]
    for layer, u in enumerate(map(np.asarray, states)):
        attention = jax.tree.map(lambda x, n=layer: np.asarray(x)[n], model.control.blocks[0])
        gamma = np.stack([kernel_by_hand(attention, sample) for sample in u], axis=1)
        gamma = gamma * mask[..., None]
        mean = (gamma * apart).sum((1, 2, 3)) / mask.sum()
        assert largest(distances.mean[layer], mean) < 1e-10
        for band, inside in enumerate([apart == 0, apart == 1, apart // 2 == 1, apart > 3]):
            share = gamma[..., inside].sum((1, 2)) / mask.sum()
            assert largest(distances.spectrum[layer, :, band], share) < 1e-10
