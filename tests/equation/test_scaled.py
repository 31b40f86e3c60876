"""An operator with a step size for each feature."""

import jax
import numpy as np
import pytest
from helpers import largest

import ide_transformer as ide


@pytest.mark.parametrize("rate", [0.5, np.array([0.5, -2.0, 0.0, 3.0])])
def test_the_rate_of_each_feature_is_scaled(rate, key):
    operator = ide.FeedForward(4, key=key, std=0.5)
    u, domain = jax.random.normal(key, (2, 3, 4)), ide.TokenDomain.uniform(3)
    expected = np.broadcast_to(rate, u.shape)
    scaled = ide.Scaled(operator, rate)(u, domain)
    assert largest(scaled, expected * operator(u, domain)) < 1e-15
    assert largest(scaled, operator(u, domain)) > 1e-2
