"""Inputs with a time of their own: the equation is solved so much longer."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide


KEY = jax.random.key(0)
# Functions on a circle, as states of two features.
U = np.random.default_rng(0).normal(size=(3, 12, 2))


class Equal(ide.AbstractInputs):
    """Inputs are states, over the time 0.5."""

    features = 2
    domain = ide.TokenDomain.periodic(12)

    def embed(self, inputs, *, key=None):
        if isinstance(inputs, ide.Timed):
            rate = jnp.asarray(inputs.duration) / 0.5
            return self.embed(inputs.inputs)._replace(rate=rate)
        return ide.models.Embedded(jnp.asarray(inputs), self.domain)


def model(solver, steps=1, *operators):
    operators = operators or (ide.equation.Diffusion(jnp.asarray(3e-4)),)
    mesh = ide.Mesh(solver=solver, steps=steps)
    states = ide.models.States()
    return ide.Model(Equal(), ide.Tied(operators, 2), ide.Free(), mesh, states)


@pytest.mark.parametrize(
    ("solver", "order"), [(diffrax.Euler(), 1), (diffrax.Heun(), 2), (ide.RK4(), 4)]
)
def test_a_longer_time_is_a_composition_to_the_order_of_the_scheme(solver, order):
    """Of a linear equation with equal weights at all depths."""
    steps = np.array([4, 8, 16])
    errors = []
    for number in steps:
        one = model(solver, int(number))
        whole = one(ide.Timed(U, 1.0))
        errors.append(float(jnp.abs(whole - one(one(U))).max()))
    observed = np.polyfit(np.log(1 / steps), np.log(errors), 1)[0]
    assert abs(observed - order) < 0.15


def test_an_exact_flow_stays_exact():
    one = model(ide.ExactFlow())
    twice = one(one(U))
    np.testing.assert_allclose(one(ide.Timed(U, 1.0)), twice, atol=1e-12)
    np.testing.assert_array_equal(one(ide.Timed(U, 0.5)), one(U))
    # A time for each sample.
    found = one(ide.Timed(U, np.array([0.0, 0.5, 1.0])))
    np.testing.assert_allclose(found, np.stack([U[0], one(U)[1], twice[2]]), atol=1e-12)


@pytest.mark.parametrize("gradient", [ide.Direct(), ide.Recompute()])
def test_gradients_of_times_are_slopes(gradient):
    feed_forward = ide.FeedForward(2, 4, std=0.5, key=KEY)
    one = model(ide.RK4(), 1, feed_forward, ide.Attention(2, 1, std=1.0, key=KEY))
    one = one.with_gradient(gradient)

    def value(duration):
        return jnp.sum(one(ide.Timed(U, duration)) ** 3)

    slope = (value(0.7 + 1e-5) - value(0.7 - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(value)(0.7), slope, rtol=1e-6)
    by_sample = jax.grad(value)(jnp.full(3, 0.7))
    np.testing.assert_allclose(by_sample.sum(), slope, rtol=1e-6)
    # The field of each sample, as running costs see it.
    durations = np.array([0.5, 1.0, 2.0])
    equation, u0 = one.initial_value_problem(ide.Timed(U, durations))
    plain, _ = one.initial_value_problem(U)
    expected = durations[:, None, None] / 0.5 * plain.vector_field(0.0, u0)
    np.testing.assert_allclose(equation.vector_field(0.0, u0), expected, rtol=1e-12)
