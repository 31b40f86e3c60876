"""Operators that act on each token by itself, and those around another one."""

import jax
import jax.numpy as jnp
import numpy as np
from equation.problems import apply, made, project, state
from helpers import WIDTH, built, largest
from published.numpy_blocks import gelu, linear

import ide_transformer as ide


def silu(x):
    return x / (1 + np.exp(-x))


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


ACTIVATIONS = {
    ide.relu: lambda x: np.maximum(x, 0),
    ide.gelu: gelu,
    ide.gelu_tanh: gelu_tanh,
    ide.silu: silu,
    ide.quick_gelu: lambda x: silu(1.702 * x) / 1.702,
}


def test_feed_forwards(key):
    u = np.asarray(state())
    known = jax.jit(lambda u: [activation(u) for activation in ACTIVATIONS])(u)
    for found, by_hand in zip(known, ACTIVATIONS.values(), strict=True):
        assert largest(found, by_hand(u)) < 1e-14
    plain = built(lambda: ide.FeedForward(WIDTH, key=key))
    gated = built(lambda: ide.GatedFeedForward(WIDTH, key=key, bias=True))
    assert plain.inner.weight.shape == (16, 64) and gated.inner.weight.shape == (16, 48)
    hidden = linear(gated.inner, u) * silu(linear(gated.gate, u))
    for operator, inner in ((plain, gelu(linear(plain.inner, u))), (gated, hidden)):
        assert largest(apply(operator, u), linear(operator.outer, inner)) < 1e-13


def test_dropout_is_a_function_of_its_key(key):
    inner, u = built(lambda: ide.FeedForward(WIDTH, key=key)), state(64)
    plain = np.asarray(apply(inner, u))
    dropped = np.asarray(apply(ide.Dropout(inner, 0.25, key), u))
    zeros = dropped == 0
    assert abs(zeros.mean() - 0.25) < 0.02
    assert np.abs(np.where(zeros, 0, dropped * 0.75 - plain)).max() < 1e-14


def test_the_delta_rule_is_the_update_of_error_free_linear_attention():
    """S ← (I - α k kᵀ) S + α k v, for a state S of one column."""
    k, v, beta = np.random.default_rng(0).normal(size=WIDTH), 0.4, 0.9
    u, domain = state(tokens=3), ide.TokenDomain.uniform(3)
    alpha = (1 - np.exp(-beta * k @ k)) / (k @ k)
    matrix = np.eye(WIDTH) - alpha * np.outer(k, k)
    for scale, expected in ((1, np.asarray(u) @ matrix.T + alpha * v * k), (0, u)):
        rule = ide.DeltaRule(jnp.asarray(scale * k)[None], jnp.array([v]), beta)
        assert largest(made(rule.flow, u, domain, 1.0), expected) < 1e-13


def test_the_normalisation_shrinks_with_depth(key):
    norm = ide.LayerNorm(jnp.linspace(1, 2, 4), jnp.linspace(-1, 1, 4))
    inner = built(lambda: ide.FeatureIntegral(4, key=key, normalization=norm))
    u = np.asarray(state(width=4))
    found = apply(ide.LayerNormScaling(inner).at(3.0, None), u)
    expected = linear(inner.map, np.asarray(project(inner.normalization, u)) / 2)
    assert largest(found, expected) < 1e-14
