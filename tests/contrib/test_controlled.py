"""Steering against the condition of an optimum, and the command."""

import functools as ft
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ide_transformer.contrib.steering import log_odds, steer
from ide_transformer.dynamics.march import March
from tests.helpers import GOLDEN, largest
from tests.layered_models import HELD_OUT, model_of
from tests.running import run_here


INPUTS = HELD_OUT[:2]


@eqx.filter_jit
def marched(model, pushes):
    """The probabilities of 3 and the slopes of its odds in the pushes."""
    march = March.of("test", model, INPUTS)

    def odds(pushes):
        states = march.states(march.no_pushes.at[1:].set(pushes))
        p = jax.nn.softmax(model.outputs(states[-1]))[:, -1, 3]
        return jnp.sum(jnp.log(p / (1 - p))), p

    slopes, p = jax.grad(odds, has_aux=True)(pushes)
    return p, slopes


@pytest.mark.heavy
def test_steering_reaches_a_probability_with_the_least_energy():
    """At an optimum the pushes are along the slopes of what they reach."""
    level = np.log(9)
    model = model_of("attention")
    steered = ft.partial(steer, model, INPUTS, lambda y: log_odds(y[..., -1, :], 3), level)
    found = steered()
    assert largest(found.reached, level) < 1e-3
    probabilities, slopes = marched(model, found.pushes)
    assert largest(probabilities, 0.9) < 1e-3
    each = np.swapaxes([found.pushes, slopes], 1, 2).reshape(2, len(INPUTS), -1)
    for (pushes, along), energy in zip(np.swapaxes(each, 0, 1), found.energy, strict=True):
        assert energy == pytest.approx(pushes @ pushes)
        cosine = pushes @ along / np.linalg.norm(pushes) / np.linalg.norm(along)
        assert cosine > 1 - 1e-3
    one = steered(intervals=[1])
    assert largest(one.reached, level) < 5e-3 and (one.energy > 2 * found.energy).all()
    assert largest(np.delete(one.pushes, 1, axis=0), 0.0) == 0


@pytest.mark.heavy
def test_the_command_prints_costates_and_energies_of_pushes(capsys, tmp_path):
    run_here(capsys, "dynamics", GOLDEN / "bert", "--samples", 4, "--out", tmp_path)
    rows = json.loads((tmp_path / "dynamics.json").read_text())["layers"]
    assert [row["layer"] for row in rows] == [0, 1]
    # The loss is the distance from the native outputs: its costates are zero up to rounding.
    assert all(row["costate"] < 1e-3 < row["state"] for row in rows)
    given = "--samples", 2, "--tokens", 3, "--out", tmp_path, "--steer", 0.05
    run_here(capsys, "dynamics", GOLDEN / "gpt2", *given)
    row = json.loads((tmp_path / "steering.json").read_text())
    # To push at all depths costs no more than in one layer.
    assert row["ratio, 95 %"] < 1
