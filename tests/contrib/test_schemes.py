"""The bidirectional approximation by hand; connections of nearly closed streams; noisy steps
against the moments of their equation. Published blocks are tested in tests/published/."""

import functools as ft
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer.compare.convergence import march
from ide_transformer.contrib import NoisySteps
from ide_transformer.contrib.connections import doubly_stochastic
from tests.helpers import drawn, largest
from tests.layered_models import HELD_OUT, model_of
from tests.published.architectures import scaled_to_sum_1
from tests.solvers.linear_problem import initial_state, layered_equation, matrices


LAYERS = 3


def bidirectional(*signs):
    """The two-step method with γ of that sign at each step after the first."""
    before, (first, *fields) = np.asarray(initial_state()), matrices(1, layers=LAYERS)[0]
    u = before + before @ first
    for sign, field in zip(signs, fields, strict=True):
        gamma = 0.5 * sign
        before, u = u, gamma * before + (1 - gamma) * u + (1 + gamma) * u @ field
    return u


def test_the_bidirectional_approximation_draws_a_sign_for_each_step_and_sample():
    equation, num_steps = layered_equation(1, LAYERS), jnp.asarray(1)
    u0 = jnp.asarray(np.stack([initial_state()] * 16))
    u1 = march(equation, u0, ide.solvers.Residual(ide.contrib.Bidirectional()), num_steps)
    assert largest(u1, bidirectional(0, 0)) < 1e-13
    outcomes = [bidirectional(*signs) for signs in itertools.product((-1, 1), repeat=2)]
    solver = ide.solvers.Residual(ide.contrib.Bidirectional(key=jax.random.key(1)))
    u1 = np.asarray(march(equation, u0, solver, num_steps))
    near = np.array([[largest(u, x) < 1e-13 for x in outcomes] for u in u1])
    assert near.any(axis=0).all() and near.any(axis=1).all()


def test_doubly_stochastic_matrices_of_nearly_closed_streams():
    """In single precision, where the exponentials of a whole column are zero beside the largest
    one: the trained weights of a diverging run were such."""
    logits, weights = np.random.default_rng(0).normal(size=(2, 4, 4))
    logits = 40 * (logits - [3, 0, 0, 0])

    @jax.jit
    @jax.value_and_grad
    def loss(x):
        return jnp.sum(weights * doubly_stochastic(x))

    def by_hand(x):
        return np.sum(weights * scaled_to_sum_1(x))

    value, gradient = loss(jnp.asarray(logits, jnp.float32))
    assert value == pytest.approx(by_hand(logits), rel=1e-4)
    steps = 1e-5 * np.eye(16).reshape(16, 4, 4)
    slopes = [(by_hand(logits + x) - by_hand(logits - x)) / 2e-5 for x in steps]
    assert np.abs(slopes).max() > 1e-3
    assert largest(np.ravel(gradient), slopes) < 1e-6


DECAY = 0.5


@ft.partial(jax.jit, static_argnames=("steps", "initial", "noise"))
def ends(u0, key, *, steps=1, initial=0.0, noise=0.0):
    """The state after three intervals of damping."""
    control = ide.Tied((ide.Damping(DECAY),), 3)
    equation = ide.Equation(control, ide.Free(), ide.TokenDomain.uniform(u0.shape[-2]))
    solver = NoisySteps(ide.LieTrotter(), initial, noise, key)
    return ide.solve(equation, u0, solver=solver, steps_per_interval=steps).u1


def test_noise_has_the_variance_of_its_equation():
    steps = 4
    u0 = jnp.ones((400, 25, 8))
    h = 1 / steps
    num_steps = 3 * steps
    decay = np.exp(-DECAY * 3)
    of_noise = 0.04 * h * np.sum(np.exp(-2 * DECAY * h * np.arange(num_steps)))
    end = np.asarray(ends(u0, jax.random.key(0), steps=steps, noise=0.2, initial=2.0))
    assert abs(end.mean()) < 0.01
    assert end.var() == pytest.approx(4 * decay**2 + of_noise, rel=0.03)


def test_without_a_key_there_is_no_noise_and_one_start():
    u0 = drawn((2, 3, 4), 0)
    assert largest(ends(u0, None, noise=0.2), np.exp(-DECAY * 3) * u0) < 1e-12
    end = ends(u0, None, initial=1.0)
    assert largest(end, jnp.broadcast_to(end[0, 0], u0.shape)) == 0
    assert largest(end, ends(-u0, None, initial=1.0)) == 0
    with pytest.raises(ide.InputError, match="AdamsBashforth"):
        memory = NoisySteps(ide.AdamsBashforth(2))
        model_of("tied").with_solver(memory).solve(HELD_OUT)
