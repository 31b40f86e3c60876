"""Schemes with learned connections, and the bidirectional approximation; their published blocks
are tested in tests/published/."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import built, largest
from published.architectures import scaled_to_sum_1
from solvers.linear_problem import (
    TOKENS,
    WIDTH,
    exact,
    final,
    initial_state,
    layered_equation,
    matrices,
    tied_equation,
)

import ide_transformer as ide
from ide_transformer.solvers.connections import doubly_stochastic
from ide_transformer.studies.convergence import march


LAYERS = 3
LAYERED = layered_equation(2, LAYERS)


def test_attention_residuals_start_as_the_mean_of_all_that_was_made():
    fields, values = matrices(2, layers=LAYERS), [np.asarray(initial_state())]
    for layer in range(LAYERS):
        for k in range(2):
            values.append(np.mean(values, axis=0) @ fields[k, layer])
    found = final(LAYERED, ide.AttentionResidual(LAYERS, 2, WIDTH))
    assert largest(found, np.mean(values, axis=0)) < 1e-13


def test_doubly_stochastic_matrices_of_nearly_closed_streams():
    """In single precision, where the exponentials of a whole column are zero beside the largest
    one: the trained weights of a diverging run were such."""
    random = np.random.default_rng(0)
    logits, weights = random.normal(size=(2, 4, 4))
    logits = 40 * (logits - [3, 0, 0, 0])

    @jax.jit
    @jax.value_and_grad
    def loss(x):
        return jnp.sum(weights * doubly_stochastic(x))

    value, gradient = loss(jnp.asarray(logits, jnp.float32))
    assert value == pytest.approx(np.sum(weights * scaled_to_sum_1(logits)), rel=1e-4)
    h, differences = 1e-5, np.zeros((4, 4))
    for place in np.ndindex(4, 4):
        step = np.zeros((4, 4))
        step[place] = h
        ends = [np.sum(weights * scaled_to_sum_1(logits + x)) for x in (step, -step)]
        differences[place] = (ends[0] - ends[1]) / (2 * h)
    assert np.abs(differences).max() > 1e-3
    assert largest(gradient, differences) < 1e-6


def test_learned_coefficients_start_as_the_scheme_on_a_constraint():
    equation = ide.Equation(LAYERED.control, ide.Sphere(), LAYERED.domain)
    learned = ide.LearnedMultistep(LAYERS, ide.Strang())
    assert largest(final(equation, learned), final(equation, ide.Strang())) < 1e-12


def bidirectional(sign):
    """The two-step method with γ of that sign at each step after the first."""
    fields = matrices(1, layers=LAYERS)[0]
    before = np.asarray(initial_state())
    u = before + before @ fields[0]
    for layer in range(1, LAYERS):
        gamma = 0.5 * sign[layer]
        before, u = (u, gamma * before + (1 - gamma) * u + (1 + gamma) * u @ fields[layer])
    return u


def test_the_bidirectional_approximation_draws_a_sign_for_each_step_and_sample():
    equation, solver = layered_equation(1, LAYERS), ide.Residual(ide.Bidirectional())
    assert largest(final(equation, solver), bidirectional([0, 0, 0])) < 1e-13
    outcomes = [bidirectional([0, first, second]) for first in (-1, 1) for second in (-1, 1)]
    solver = ide.Residual(ide.Bidirectional(key=jax.random.key(1)))
    u0 = jnp.asarray(np.stack([initial_state()] * 16))
    u1 = np.asarray(ide.solve(equation, u0, solver=solver).u1)
    found = {n for u in u1 for n, x in enumerate(outcomes) if largest(u, x) < 1e-13}
    assert found == {0, 1, 2, 3}
    assert all(min(largest(u, x) for x in outcomes) < 1e-13 for u in u1)


def test_the_bidirectional_approximation_is_of_first_order():
    """The root mean square of the error over 512 draws, on a tied field."""
    (matrix,) = matrices(1)
    equation, u0 = tied_equation(matrix), jnp.asarray(np.stack([initial_state()] * 512))
    solver = ide.Bidirectional(key=jax.random.key(2))
    errors = []
    for steps in (16, 32, 64):
        u1 = march(equation, u0, solver, jnp.asarray(steps))
        errors.append(float(np.sqrt(np.mean((np.asarray(u1) - exact(matrix)) ** 2))))
    orders = np.log2(errors[:-1]) - np.log2(errors[1:])
    assert orders == pytest.approx([1, 1], abs=0.15)


def test_a_model_draws_only_with_a_key():
    bidirectional = ide.Discretization(ide.Residual(ide.Bidirectional()))
    options = dict(control=LAYERED.control, constraint=ide.Free(), key=jax.random.key(0))
    model = built(
        lambda: ide.LanguageModel(5, TOKENS, WIDTH, discretization=bidirectional, **options)
    )
    plain = model.with_solver(ide.LieTrotter())
    assert model.random and not plain.random
    logits = eqx.filter_jit(lambda model, key=None: model(jnp.array([0, 1, 2]), key=key))
    without = logits(model)
    assert largest(without, logits(plain)) < 1e-13
    first, again, other = (logits(model, jax.random.key(n)) for n in (1, 1, 2))
    assert largest(first, again) == 0
    assert largest(first, without) > 1e-6
    assert largest(first, other) > 1e-6 or largest(other, without) > 1e-6
