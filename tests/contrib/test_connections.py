"""Doubly stochastic connections stay finite; the published blocks are tested in
tests/published/."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ide_transformer.contrib.connections import doubly_stochastic
from tests.helpers import largest
from tests.published.architectures import scaled_to_sum_1


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
