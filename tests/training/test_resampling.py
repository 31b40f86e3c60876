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


# What each optimizer keeps of a weight, and how often the gradient is a factor of it.
KINDS = {
    "adamw": {"mu": 1, "nu": 2},
    "schedule_free": {"z": 0, "mu": 1, "nu": 2},
    "lion": {"mu": 1},
    "muon": {"mu": 1, "nu": 2},
}
# From two intervals to four: layers are repeated, knots interpolated, functions stay; and the
# share of the gradient that each has then.
MATRICES = {
    "piecewise_constant": (np.repeat(np.eye(2), 2, axis=0), 0.5),
    "piecewise_linear": (
        np.array([[1, 0, 0], [0.5, 0.5, 0], [0, 1, 0], [0, 0.5, 0.5], [0, 0, 1]]),
        0.5,
    ),
    "chebyshev": (None, 1.0),
}
CASES = [("piecewise_constant", "schedule_free"), ("piecewise_linear", "adamw")]
CASES += [("chebyshev", "adamw"), *(("piecewise_constant", x) for x in ("muon", "lion"))]


def named(state):
    """The leaves of a state by their paths."""
    leaves = jax.tree.leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="."): x for path, x in leaves}


@pytest.mark.parametrize(("control", "kind"), fast_first(3, CASES))
def test_what_is_kept_of_weights_is_that_of_the_finer_ones(control, kind):
    config = stub.config(control=control, optimizer={"kind": kind, "schedule": "constant"})
    model = stub.model_of(config)
    optimizer = training.build_optimizer(config.optimizer, 10)
    start = ft.partial(training.initial_state, model, optimizer)
    shapes, static = eqx.filter_eval_shape(start, jax.random.key(0))
    # Means of squares, among others, are not negative.
    state = jax.tree.map(abs, filled(shapes, 0.3, seed=0))
    resample = ft.partial(resample_state, optimizer=optimizer, static=static, num_intervals=4)
    refined = jax.jit(resample)(state)

    weights = eqx.filter(model.on(ide.Mesh(intervals=4)), eqx.is_inexact_array)
    expected = jax.eval_shape(optimizer.init, weights)
    assert jax.tree.structure(expected) == jax.tree.structure(refined.optimizer)
    before, after = named(state.optimizer), named(refined.optimizer)
    assert before.keys() == after.keys()
    (matrix, share), seen = MATRICES[control], set()
    for path, x in before.items():
        if "control" in path:
            name = next(part for part in path.split(".") if part in KINDS[kind])
            seen.add(name)
            x = x if matrix is None else np.tensordot(matrix, x, axes=1)
            x = x * share ** KINDS[kind][name]
        np.testing.assert_allclose(after[path], x, rtol=1e-6, atol=1e-7)
    assert seen == set(KINDS[kind])
