"""The state of an optimizer on another mesh in depth."""

import functools as ft

import equinox as eqx
import jax
import numpy as np
import pytest
from helpers import fast_first, filled
from training import stub

import ide_transformer as ide
from ide_transformer import training
from ide_transformer.training.phases import resample_state


KINDS = {
    # What each keeps of a weight, and how often the gradient is a factor of it.
    "adamw": {"mu": 1, "nu": 2},
    "schedule_free": {"z": 0, "mu": 1, "nu": 2},
    "lion": {"mu": 1},
    "muon": {"mu": 1, "nu": 2},
}


def small(control, kind):
    """A model on two intervals, an optimizer, and a state of training full of numbers."""
    config = stub.config(control=control, optimizer={"kind": kind, "schedule": "constant"})
    model = stub.model_of(config)
    optimizer = training.build_optimizer(config.optimizer, 10)
    start = ft.partial(training.initial_state, model, optimizer)
    shapes, static = eqx.filter_eval_shape(start, jax.random.key(0))
    # Means of squares, among others, are not negative.
    state = jax.tree.map(abs, filled(shapes, 0.3, seed=0))
    resample = ft.partial(resample_state, optimizer=optimizer, static=static, num_intervals=4)
    refined = jax.jit(resample)(state)
    return model, optimizer, state, refined


def named(state):
    """The leaves of a state by their paths."""
    leaves = jax.tree.leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="."): x for path, x in leaves}


@pytest.mark.parametrize("kind", fast_first(2, KINDS))
def test_what_is_kept_of_layers_is_repeated_and_shared(kind):
    model, optimizer, state, refined = small({"kind": "piecewise_constant"}, kind)
    weights = eqx.filter(model.on(ide.Mesh(intervals=4)), eqx.is_inexact_array)
    expected = jax.eval_shape(optimizer.init, weights)
    assert jax.tree.structure(expected) == jax.tree.structure(refined.optimizer)
    before, after = named(state.optimizer), named(refined.optimizer)
    assert before.keys() == after.keys()
    seen = set()
    for path, x in before.items():
        if "control" in path:
            name = next(part for part in path.split(".") if part in KINDS[kind])
            seen.add(name)
            x = np.repeat(x, 2, axis=0) / 2 ** KINDS[kind][name]
        np.testing.assert_allclose(after[path], x, rtol=1e-6)
    assert seen == set(KINDS[kind])


@pytest.mark.parametrize("kind", ["chebyshev", "tied"])
def test_functions_of_depth_and_what_is_kept_of_them_stay(kind):
    _, _, state, refined = small({"kind": kind}, "adamw")
    assert jax.tree.structure(state) != jax.tree.structure(refined)
    for x, y in zip(jax.tree.leaves(state), jax.tree.leaves(refined), strict=True):
        np.testing.assert_array_equal(x, y)


def test_knots_are_interpolated():
    _, _, state, refined = small({"kind": "piecewise_linear"}, "adamw")
    between = np.array([[1, 0, 0], [0.5, 0.5, 0], [0, 1, 0], [0, 0.5, 0.5], [0, 0, 1]])
    before, after = named(state.optimizer), named(refined.optimizer)
    found = 0
    for path, x in before.items():
        if "control" in path:
            factor = 0.25 if ".nu." in path else 0.5
            y = factor * np.tensordot(between, x, axes=1)
            np.testing.assert_allclose(after[path], y, rtol=1e-6, atol=1e-7)
            found += 1
    assert found
