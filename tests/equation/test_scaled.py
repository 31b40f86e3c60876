"""An operator with a step size for each feature."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equation.problems import apply, state

import ide_transformer as ide


@pytest.mark.parametrize("rate", [0.5, np.array([0.5, -2.0, 0.0, 3.0])])
def test_the_rate_of_each_feature_is_scaled(rate, key):
    operator = ide.FeedForward(4, key=key, std=0.5)
    u, domain = state(2, tokens=3, width=4), ide.TokenDomain.uniform(3)
    scaled = np.asarray(apply(ide.Scaled(operator, rate), u, domain))
    plain = np.asarray(apply(operator, u, domain))
    assert np.abs(scaled - rate * plain).max() < 1e-15
    assert np.abs(scaled - plain).max() > 1e-2


def test_the_derivative_with_respect_to_the_length_of_intervals():
    """The rate of `Scaled` has it; lengths that are arrays are refused."""
    inside = ide.FeedForward(4, key=jax.random.key(0), std=0.5)
    u0, domain = state(tokens=3, width=4), ide.TokenDomain.uniform(3)

    def total(block, length=1.0):
        equation = ide.Equation(ide.Tied(block, 2, length), ide.Free(), domain)
        return jnp.sum(ide.solve(equation, u0, solver=ide.RK4()).u1 ** 2)

    above, below = (total((inside,), 0.7 + h) for h in (1e-4, -1e-4))
    found = jax.grad(lambda h: total((ide.Scaled(inside, h),)))(0.7)
    assert float(found) == pytest.approx(float(above - below) / 2e-4, rel=1e-7)
    message = "interval_length=.*a number of Python"
    for length in (jnp.asarray(0.7), np.asarray(0.7)):
        with pytest.raises(ide.InputError, match=message):
            total((inside,), length)
    blocks = eqx.filter_vmap(lambda key: (ide.FeedForward(4, key=key),))(
        jax.random.split(jax.random.key(0), 3)
    )
    for control in (
        ide.PiecewiseConstant,
        ide.PiecewiseLinear,
        partial(ide.Chebyshev, num_intervals=2),
    ):
        with pytest.raises(ide.InputError, match=message):
            jax.grad(lambda h, c=control: c(blocks, interval_length=h).horizon)(1.0)
