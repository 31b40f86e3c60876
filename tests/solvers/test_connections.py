"""Schemes with learned connections, and the bidirectional approximation; their published blocks
are tested in tests/published/."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import largest
from published.architectures import scaled_to_sum_1
from solvers.linear_problem import initial_state, layered_equation, matrices

import ide_transformer as ide
from ide_transformer.solvers.connections import doubly_stochastic
from ide_transformer.studies.convergence import march


LAYERS = 3


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


def bidirectional(*signs):
    """The two-step method with γ of that sign at each step after the first."""
    before, (first, *fields) = np.asarray(initial_state()), matrices(1, layers=LAYERS)[0]
    u = before + before @ first
    for sign, field in zip(signs, fields, strict=True):
        gamma = 0.5 * sign
        before, u = u, gamma * before + (1 - gamma) * u + (1 + gamma) * u @ field
    return u


def test_the_bidirectional_approximation_draws_a_sign_for_each_step_and_sample():
    equation, one = layered_equation(1, LAYERS), jnp.asarray(1)
    u0 = jnp.asarray(np.stack([initial_state()] * 16))
    u1 = march(equation, u0, ide.Residual(ide.Bidirectional()), one)
    assert largest(u1, bidirectional(0, 0)) < 1e-13
    outcomes = [bidirectional(*signs) for signs in itertools.product((-1, 1), repeat=2)]
    solver = ide.Residual(ide.Bidirectional(key=jax.random.key(1)))
    u1 = np.asarray(march(equation, u0, solver, one))
    near = np.array([[largest(u, x) < 1e-13 for x in outcomes] for u in u1])
    assert near.any(axis=0).all() and near.any(axis=1).all()
