"""Correlations of readings with changes of the loss, against a march by hand and SciPy."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import HEADS
from layered_models import CALIBRATION, HELD_OUT, LAYERS, by_hand, layer_by_layer, model_of
from scipy.stats import spearmanr

from ide_transformer import dynamics
from ide_transformer.studies.depth_problem import Problem
from ide_transformer.studies.readings import changes_of_heads, compare_readings


# As many samples as groups.
INPUTS = np.concatenate([HELD_OUT, CALIBRATION])[:, :4]


def losses(outputs):
    return -jnp.mean(jax.nn.log_softmax(outputs)[..., 3], axis=-1)


def losses_by_hand(steps):
    """The loss of each sample."""
    logits = np.asarray(by_hand(model_of(), steps, INPUTS))
    others = np.log(np.exp(logits).sum(axis=-1))
    return np.mean(others - logits[..., 3], axis=-1)


def halves(layer):
    return [(layer, 0, 0.5), (layer, 1, 0.5)] * 2


def test_correlations_are_those_of_changes_by_hand(monkeypatch):
    """Readings but the costates are numbers drawn here; `dynamics` has their own tests."""
    random = np.random.default_rng(7).normal
    norms, exponents = random(size=(len(INPUTS), LAYERS)), random(size=(len(INPUTS), 1))
    predicted, error, distance, changes = random(size=(4, LAYERS, HEADS))
    for name, found in {
        "log_norms": norms,
        "stretching": exponents,
        "coarse_heads": (predicted, error),
        "distances": SimpleNamespace(mean=distance),
    }.items():
        monkeypatch.setattr(dynamics, name, lambda *_, found=found: found)

    model, problem = model_of(), Problem(INPUTS, INPUTS, losses)
    heads = np.tile(changes.reshape(-1, 1), len(INPUTS))
    rows = [*compare_readings(model, problem, (2, heads))]
    native = layer_by_layer(range(LAYERS))
    without = [losses_by_hand(native[:n] + native[n + 1 :]).mean() for n in range(len(native))]
    halved = [
        losses_by_hand(native[: 2 * n] + halves(n) + native[2 * n + 2 :]).mean()
        for n in range(LAYERS)
    ]
    twice = [step for n in range(LAYERS) for step in halves(n)]
    whole = losses_by_hand(twice) - losses_by_hand(native)
    readings = dynamics.costates(model, INPUTS, lambda y: jnp.mean(losses(y)))
    pairs = {
        ("-⟨p, A_i(u)⟩", "loss without it"): (-readings.hamiltonian, without),
        ("log-norm", "loss with two steps in it"): (norms.mean(0), halved),
        ("log-norm", "loss with twice the steps"): (norms.mean(1), whole),
        ("largest exponent", "loss with twice the steps"): (exponents, whole),
        ("predicted error", "error on blocks of 2"): (predicted, error),
        ("mean distance", "error on blocks of 2"): (distance, error),
        ("predicted error", "loss with it on blocks of 2"): (predicted, changes),
        ("error", "loss with it on blocks of 2"): (error, changes),
        ("mean distance", "loss with it on blocks of 2"): (distance, changes),
    }
    found = {(row["reading"], row["measured"]): row for row in rows}
    assert len(rows) == len(found) == len(pairs) + 2
    for name, (reading, outcome) in pairs.items():
        row, expected = found[name], spearmanr(np.ravel(reading), np.ravel(outcome)).statistic
        assert row["correlation"] == pytest.approx(expected), name
        assert -1 <= row["low"] <= row["correlation"] <= row["high"] <= 1


def test_one_head_after_the_other_is_changed():
    problem = Problem(INPUTS, INPUTS, losses)
    found = changes_of_heads(model_of(), problem, 2)
    chosen = np.zeros((LAYERS, HEADS), bool)
    chosen[1, 2] = True
    changed = dynamics.with_coarse_heads(model_of(), 2, chosen)
    after, before = (jax.jit(lambda m=m: losses(m(INPUTS)))() for m in (changed, model_of()))
    expected = np.asarray(after) - np.asarray(before)
    assert np.abs(found[HEADS + 2] - expected).max() < 1e-12 < np.abs(expected).max()
