"""Correlations of readings with changes of the loss, against a march by hand and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import HEADS
from layered_models import CALIBRATION, HELD_OUT, LAYERS, model_of
from scipy.stats import spearmanr

import ide_transformer as ide
from ide_transformer.dynamics import costates, log_norms
from ide_transformer.studies.controlled import study_dynamics
from ide_transformer.studies.depth_problem import Problem
from ide_transformer.studies.readings import changes_of_heads, compare_readings


INPUTS = np.concatenate([HELD_OUT, CALIBRATION])


def losses(outputs):
    return -jnp.mean(jax.nn.log_softmax(outputs)[..., 3], axis=-1)


def loss_by_hand(rates):
    """The mean loss of an Euler march with these step sizes, a list of pairs for each layer."""
    model = model_of()
    u, domain = model.embed(INPUTS)
    for layer, steps in enumerate(rates):
        for pair in steps:
            for operator, rate in zip(model.control(layer), pair, strict=True):
                u = u + rate * operator(u, domain)
    return float(jnp.mean(losses(model.outputs(u))))


def test_correlations_are_those_of_changes_by_hand(tmp_path):
    model = model_of()
    problem = Problem(INPUTS, INPUTS, losses)
    rows = [*compare_readings(model, problem, (2, changes_of_heads(model, problem, 2)))]
    found = {(row["reading"], row["measured"]): row for row in rows}
    assert [row["units"] for row in rows[:5]] == [*["8 operators"] * 3, "4 layers", "8 samples"]
    native = [[(1.0, 1.0)]] * LAYERS
    without = []
    for layer, operator in np.ndindex(LAYERS, 2):
        rates = list(native)
        rates[layer] = [tuple(float(i != operator) for i in range(2))]
        without.append(loss_by_hand(rates))
    readings = costates(model, INPUTS, lambda y: jnp.mean(losses(y)))
    row = found["-⟨p, A_i(u)⟩", "loss without it"]
    expected = spearmanr(-np.ravel(readings.hamiltonian), without).statistic
    assert row["correlation"] == pytest.approx(expected)
    assert -1 <= row["low"] <= row["correlation"] <= row["high"] <= 1

    halved = []
    for layer in range(LAYERS):
        rates = list(native)
        rates[layer] = [(0.5, 0.5)] * 2
        halved.append(loss_by_hand(rates))
    expected = spearmanr(log_norms(model, INPUTS).mean(0), halved).statistic
    assert found["log-norm", "loss with two steps in it"]["correlation"] == pytest.approx(
        expected
    )
    assert rows[-1]["units"] == f"{LAYERS * HEADS} heads"
    with pytest.raises(ide.InputError, match="samples=7: correlations need 8 groups"):
        study_dynamics("nowhere", tmp_path, samples=7, predict=True)
