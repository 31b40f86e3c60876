"""Inputs with a time of their own: the equation is solved so much longer."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide
from tests.helpers import built, largest, observed_order


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
    parts = Equal(), ide.Tied(operators, 2), ide.Free(), ide.models.States()
    return ide.Model(*parts, solver=solver, mesh=ide.Mesh(steps=steps))


@pytest.mark.parametrize(("solver", "order"), [(diffrax.Euler(), 1), (ide.RK4(), 4)])
def test_a_longer_time_is_a_composition_to_the_order_of_the_scheme(solver, order):
    """Of a linear equation with equal weights at all depths."""

    def error_of(steps):
        solved = eqx.filter_jit(model(solver, steps))
        once, half = (solved(ide.Timed(U, jnp.asarray(time))) for time in (1.0, 0.5))
        return largest(once, solved(ide.Timed(half, jnp.asarray(0.5))))

    assert abs(observed_order(error_of, (8, 16)) - order) < 0.15


def test_an_exact_flow_over_a_time_for_each_sample_is_exact():
    flow = eqx.filter_jit(model(ide.ExactFlow()))
    once = flow(U)
    end = flow(ide.Timed(U, np.array([0.0, 0.5, 1.0])))
    np.testing.assert_allclose(end, np.stack([U[0], once[1], flow(once)[2]]), atol=1e-12)


def test_gradients_of_times_are_slopes():
    parts = built(lambda: (ide.FeedForward(2, 4, key=KEY), ide.Attention(2, 1, key=KEY)), 0.7)
    heun = model(diffrax.Heun(), 1, *parts)
    durations = np.array([0.5, 1.0, 2.0])

    @jax.jit
    @jax.value_and_grad
    def value(durations):
        return jnp.sum(heun(ide.Timed(U, durations)) ** 3)

    step = 1e-5 * np.array([1.0, -2.0, 0.5])
    slope = (value(durations + step)[0] - value(durations - step)[0]) / 2
    np.testing.assert_allclose(value(durations)[1] @ step, slope, rtol=1e-6)

    # The field of each sample, as running costs see it.
    @eqx.filter_jit
    def rate(inputs):
        equation, u0 = heun.initial_value_problem(inputs)
        return equation.vector_field(0.0, u0)

    expected = durations[:, None, None] / 0.5 * rate(U)
    np.testing.assert_allclose(rate(ide.Timed(U, durations)), expected, rtol=1e-12)
