"""Steering against the condition of an optimum; training by Pontryagin's principle against a
linear-quadratic problem."""

import functools as ft
import json

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import contrib
from ide_transformer.contrib import log_odds, steer
from ide_transformer.dynamics import March
from tests.helpers import GOLDEN, largest
from tests.layered_models import HELD_OUT, model_of
from tests.running import run_here
from tests.states import state_model


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
    steering = steered()
    assert largest(steering.reached, level) < 1e-3
    probabilities, slopes = marched(model, steering.pushes)
    assert largest(probabilities, 0.9) < 1e-3
    each = np.swapaxes([steering.pushes, slopes], 1, 2).reshape(2, len(INPUTS), -1)
    for (pushes, along), energy in zip(np.swapaxes(each, 0, 1), steering.energy, strict=True):
        assert energy == pytest.approx(pushes @ pushes)
        cosine = pushes @ along / np.linalg.norm(pushes) / np.linalg.norm(along)
        assert cosine > 1 - 1e-3
    in_one_layer = steered(intervals=[1])
    assert (
        largest(in_one_layer.reached, level) < 5e-3
        and (in_one_layer.energy > 2 * steering.energy).all()
    )
    assert largest(np.delete(in_one_layer.pushes, 1, axis=0), 0.0) == 0


class Drift(ide.AbstractOperator):
    """`u_t = A u`, A no weight."""

    matrix: tuple = eqx.field(static=True)

    def __call__(self, u, domain):
        return u @ jnp.asarray(self.matrix).T


class Push(ide.AbstractOperator):
    """`u_t = θ`."""

    theta: jax.Array

    def __call__(self, u, domain):
        return jnp.broadcast_to(self.theta, u.shape)


def test_successive_approximations_solve_a_linear_quadratic_problem():
    """`|u(T) - target|²/2 + r/2 ∫ |θ|² dt` of `u_t = A u + θ` in steps of Heun's method, whose
    end depends linearly on θ."""
    num_steps, h, r = 4, 0.5, 0.5
    matrix = np.array([[0.1, 1.0, 0.0], [-1.0, 0.1, 0.3], [0.0, 0.2, -0.4]])
    start, target = np.array([1.0, 0.0, -1.0]), np.array([0.5, -1.0, 0.3])
    drift = Drift(tuple(map(tuple, matrix.tolist())))
    model = state_model(
        ide.TokenDomain.uniform(1),
        3,
        control=ide.PiecewiseConstant((drift, Push(jnp.zeros((num_steps, 3)))), h),
        constraint=ide.Free(),
        solver=diffrax.Heun(),
    )

    def loss(u):
        return jnp.sum((u - target[None]) ** 2) / 2

    result = contrib.successive_approximations(
        model, jnp.asarray(start[None]), loss, [ide.contrib.ControlEnergy(r / 2)], iterations=30
    )
    assert (np.diff(result.objectives) <= 0).all()
    step = np.eye(3) + h * matrix @ (np.eye(3) + h * matrix / 2)
    power, entering = np.linalg.matrix_power, h * (np.eye(3) + h * matrix / 2)
    slopes = np.hstack([power(step, num_steps - 1 - n) @ entering for n in range(num_steps)])
    missed = target - power(step, num_steps) @ start
    expected = np.linalg.solve(
        slopes.T @ slopes + r * h * np.eye(3 * num_steps), slopes.T @ missed
    )
    assert np.abs(expected).max() > 0.5
    assert largest(result.model.control.blocks[1].theta.ravel(), expected) < 1e-3


@pytest.mark.heavy
def test_the_command_prints_costates_and_energies_of_pushes(capsys, tmp_path):
    run_here(capsys, "dynamics", GOLDEN / "bert", "--samples", 4, "--out", tmp_path)
    rows = json.loads((tmp_path / "dynamics.json").read_text())["layers"]
    assert [row["layer"] for row in rows] == [0, 1]
    # The loss is the distance from the native outputs: its costates are zero up to rounding.
    assert all(row["costate"] < 1e-3 < row["state"] for row in rows)
    options = "--samples", 2, "--tokens", 3, "--out", tmp_path, "--steer", 0.05
    run_here(capsys, "dynamics", GOLDEN / "gpt2", *options)
    row = json.loads((tmp_path / "steering.json").read_text())
    # To push at all depths costs no more than in one layer.
    assert row["ratio, 95 %"] < 1
