"""Windows of layers that are walked in several steps."""

import jax.numpy as jnp
import pytest

from ide_transformer.contrib import Walk, walked_state
from ide_transformer.contrib.windows import walks
from tests.helpers import largest
from tests.layered_models import HELD_OUT, LAYERS, _step, model_of
from tests.running import run_here


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
    end = walked_state(model, HELD_OUT, jnp.asarray(FIRST), jnp.asarray(END), walk)
    assert largest(end, walked_by_hand(model, walk)) < 1e-12


@pytest.mark.heavy
def test_the_command_walks_the_windows_of_a_run_on_a_text(tiny_run, tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("the cat and the dog. " * 200)
    options = "--calibration", 2, "--held-out", 2, "--out", tmp_path, "--text", text
    run_here(capsys, "depth", tiny_run, "--windows", 2, *options)
    assert (tmp_path / "windows/report.json").exists()


def test_evaluations_are_counted():
    assert Walk(1).evaluations(12, 4) == 12
    assert Walk(3, anchor=0.5).evaluations(12, 4) == 20
    assert Walk(3, heun=True).evaluations(12, 4) == 32
