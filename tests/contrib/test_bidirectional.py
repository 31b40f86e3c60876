"""The bidirectional approximation, by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

import ide_transformer as ide
from ide_transformer.compare.convergence import march
from tests.helpers import largest
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
