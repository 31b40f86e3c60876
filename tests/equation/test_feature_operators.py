"""Operators that act on each token by itself, and those around another one."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equation.problems import apply, made, state
from helpers import WIDTH, largest
from published.numpy_blocks import linear

import ide_transformer as ide


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        (ide.relu, lambda x: np.maximum(x, 0)),
        (ide.gelu, lambda x: 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))),
        (
            ide.gelu_tanh,
            lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
        ),
        (ide.silu, lambda x: x / (1 + np.exp(-x))),
        (ide.quick_gelu, lambda x: x / (1 + np.exp(-1.702 * x))),
    ],
)
def test_feed_forwards(key, activation, expected):
    u, options = state(), dict(key=key, activation=activation, std=0.5, bias=True)
    plain, gated = (kind(WIDTH, **options) for kind in (ide.FeedForward, ide.GatedFeedForward))
    assert gated.inner.weight.shape == (16, 48) and plain.inner.weight.shape == (16, 64)
    plain, gated = (
        jax.tree.map(lambda x: x + jnp.linspace(0, 1, len(x)) if x.ndim == 1 else x, y)
        for y in (plain, gated)
    )
    u = np.asarray(u)
    out = linear(plain.outer, expected(linear(plain.inner, u)))
    assert largest(apply(plain, u), out) < 1e-13
    out = linear(gated.outer, expected(linear(gated.gate, u)) * linear(gated.inner, u))
    assert largest(apply(gated, u), out) < 1e-13


def test_dropout_is_a_function_of_its_key(key):
    inner, u = ide.FeedForward(WIDTH, key=key), state(64)
    plain = np.asarray(apply(inner, u))
    dropped = np.asarray(apply(ide.Dropout(inner, 0.25, key), u))
    zeros = dropped == 0
    assert abs(zeros.mean() - 0.25) < 0.02
    assert np.abs(np.where(zeros, 0, dropped * 0.75 - plain)).max() < 1e-14


@pytest.mark.parametrize("rate", [0.5, np.array([0.5, -2.0, 0.0, 3.0])])
def test_the_rate_of_each_feature_is_scaled(rate, key):
    operator, u = ide.FeedForward(4, key=key, std=0.5), state(2, width=4)
    scaled = apply(ide.Scaled(operator, rate), u)
    assert largest(scaled, rate * np.asarray(apply(operator, u))) < 1e-15


def test_the_rate_of_scaled_has_the_derivative_of_the_length_of_intervals(key):
    inside, u0 = ide.FeedForward(4, key=key, std=0.5), state(tokens=3, width=4)

    def total(block, length=1.0):
        theta = ide.Tied(block, 2, length)
        equation = ide.Equation(theta, ide.Free(), ide.TokenDomain.uniform(3))
        return jnp.sum(ide.solve(equation, u0, solver=ide.RK4()).u1 ** 2)

    above, below = (total((inside,), 0.7 + h) for h in (1e-4, -1e-4))
    found = jax.grad(lambda h: total((ide.Scaled(inside, h),)))(0.7)
    assert float(found) == pytest.approx(float(above - below) / 2e-4, rel=1e-7)
    with pytest.raises(ide.InputError, match=r"interval_length=.*a number of Python"):
        total((inside,), jnp.asarray(0.7))


def test_damping_and_sources():
    u, f, rate = state(), state(seed=9), np.linspace(0.1, 1, WIDTH)
    assert largest(apply(ide.StableDamping(rate), u), -rate * np.asarray(u)) < 1e-15
    assert largest(apply(ide.Injection(rate, f), u), rate * np.asarray(f)) < 1e-15
    assert largest(apply(ide.Relaxation(rate, f), u), rate * np.asarray(f - u)) < 1e-15
    assert largest(apply(ide.Injection(rate, f), state(2)), rate * np.asarray(f)) < 1e-15


def test_the_delta_rule_is_the_update_of_error_free_linear_attention():
    """S ← (I - α k kᵀ) S + α k v, for a state S of one column."""
    k, v, beta = np.random.default_rng(0).normal(size=WIDTH), 0.4, 0.9
    u, domain = state(tokens=3), ide.TokenDomain.uniform(3)
    rule = ide.DeltaRule(jnp.asarray(k)[None], jnp.array([v]), beta)
    alpha = (1 - np.exp(-beta * k @ k)) / (k @ k)
    matrix = np.eye(WIDTH) - alpha * np.outer(k, k)
    expected = np.asarray(u) @ matrix.T + alpha * v * k
    assert largest(made(rule.flow, u, domain, 1.0), expected) < 1e-13
    still = ide.DeltaRule(jnp.zeros((1, WIDTH)), jnp.ones(1))
    assert largest(made(still.flow, u, domain, 1.0), u) == 0


def test_the_normalisation_shrinks_with_depth(key):
    norm = ide.LayerNorm(jnp.linspace(1, 2, 4), jnp.linspace(-1, 1, 4))
    inner, u = ide.FeatureIntegral(4, key=key, std=0.5, normalization=norm), state(width=4)
    found = apply(ide.LayerNormScaling(inner).at(3.0, None), u)
    expected = linear(inner.map, np.asarray(norm.project(u)) / 2)
    assert largest(found, expected) < 1e-14
