"""An operator with a step size for each feature."""

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
