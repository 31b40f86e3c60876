"""Operators that act on each token by itself, and those around another one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equation.problems import apply, made, state
from helpers import WIDTH, built, largest
from published.numpy_blocks import gelu, linear

import ide_transformer as ide


ACTIVATIONS = {
    ide.relu: lambda x: np.maximum(x, 0),
    ide.gelu: gelu,
    ide.gelu_tanh: lambda x: (
        0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    ),
    ide.silu: lambda x: x / (1 + np.exp(-x)),
    ide.quick_gelu: lambda x: x / (1 + np.exp(-1.702 * x)),
}


def of_kind(kind, activation, key):
    return built(lambda: kind(WIDTH, key=key, activation=activation, bias=True))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_feed_forwards(key, activation):
    operator, u = of_kind(ide.FeedForward, activation, key), np.asarray(state())
    assert operator.inner.weight.shape == (16, 64)
    expected = linear(operator.outer, ACTIVATIONS[activation](linear(operator.inner, u)))
    assert largest(apply(operator, u), expected) < 1e-13


def test_a_gated_feed_forward(key):
    operator, u = of_kind(ide.GatedFeedForward, ide.silu, key), np.asarray(state())
    assert operator.inner.weight.shape == (16, 48)
    gate = ACTIVATIONS[ide.silu](linear(operator.gate, u))
    expected = linear(operator.outer, gate * linear(operator.inner, u))
    assert largest(apply(operator, u), expected) < 1e-13


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
    inside, u0 = built(lambda: ide.FeedForward(4, key=key)), state(tokens=3, width=4)

    def total(block, length=1.0):
        theta = ide.Tied(block, 2, length)
        equation = ide.Equation(theta, ide.Free(), ide.TokenDomain.uniform(3))
        return jnp.sum(ide.solve(equation, u0, solver=ide.RK4(), throw=False).u1 ** 2)

    above, below = (float(jax.jit(lambda h=h: total((inside,), h))()) for h in (0.7001, 0.6999))
    found = jax.jit(jax.grad(lambda h: total((ide.Scaled(inside, h),))))(0.7)
    assert float(found) == pytest.approx((above - below) / 2e-4, rel=1e-7)
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
