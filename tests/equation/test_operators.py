import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equation.problems import DOMAIN, apply, project, state
from helpers import TOKENS, WIDTH, largest

import ide_transformer as ide


def loop_attention(operator, u, causal):
    """Attention written out token by token and head by head, in NumPy."""
    u = np.asarray(project(operator.normalization, u))
    maps = {
        name: np.asarray(u @ np.asarray(getattr(operator, name).weight))
        + np.asarray(getattr(operator, name).bias)
        for name in ("query", "key", "value")
    }
    heads, shared = operator.heads, operator.key_value_heads
    size = maps["query"].shape[-1] // heads
    out = np.zeros((u.shape[0], heads * size))
    for head in range(heads):
        group = head // (heads // shared)
        q = maps["query"][:, head * size : (head + 1) * size]
        k = maps["key"][:, group * size : (group + 1) * size]
        v = maps["value"][:, group * size : (group + 1) * size]
        for x in range(u.shape[0]):
            seen = x + 1 if causal else u.shape[0]
            scores = np.array([q[x] @ k[z] for z in range(seen)]) / np.sqrt(size)
            gamma = np.exp(scores - scores.max())
            out[x, head * size : (head + 1) * size] = (gamma / gamma.sum()) @ v[:seen]
    return out @ np.asarray(operator.output.weight) + np.asarray(operator.output.bias)


@pytest.mark.parametrize(
    "heads, shared, causal, normalization",
    [
        (4, 4, False, ide.Free()),
        (4, 2, True, ide.LayerNorm()),
        (4, 1, False, ide.RMSNorm()),
        (1, 1, True, ide.Free()),
    ],
)
def test_attention_equals_loops(heads, shared, causal, normalization, key):
    operator = ide.Attention(
        WIDTH,
        heads,
        key_value_heads=shared,
        causal=causal,
        normalization=normalization,
        std=0.5,
        key=key,
    )
    u = state()
    assert largest(apply(operator, u), loop_attention(operator, u, causal)) < 1e-12


def test_distances_on_a_torus_are_those_of_the_shorter_way(key):
    shape, lengths = (5, 4), (1.0, 3.0)
    torus = ide.TokenDomain.periodic(shape, lengths)
    points = np.asarray(torus.points)
    apart = np.abs(points[:, None] - points)
    distance = np.linalg.norm(np.minimum(apart, np.array(lengths) - apart), axis=-1)
    bias = ide.LinearBias(1).score_bias(torus, torus)
    assert largest(bias[0], -distance / 256) < 1e-15
    total = jax.grad(lambda domain: ide.LinearBias(1).score_bias(domain, domain).sum())
    assert jnp.isfinite(total(torus).points).all()
    near = ide.Neighborhood(0.77).indicator(torus, torus)
    assert np.array_equal(near, distance < 0.77)
    # A window around the circle moves with the state.
    circle, u = ide.TokenDomain.periodic(TOKENS), state()
    positions = ide.LinearBias(4, scale=9.0)
    attention = ide.Attention(WIDTH, 4, key=key, std=0.3, window=0.4, positions=positions)
    moved = apply(attention, jnp.roll(u, 2, axis=-2), circle)
    assert largest(moved, jnp.roll(apply(attention, u, circle), 2, axis=-2)) < 1e-13


@pytest.mark.parametrize("heads", [1, 2, 3, 6, 8, 12])
def test_slopes_are_those_of_press_and_others(heads):
    """Their code: those of the next lower power of two, and every second one of its double."""

    def published(number):
        power = 2 ** int(np.log2(number))
        slopes = [2 ** (-8 * h / power) for h in range(1, power + 1)]
        more = [] if power == number else published(2 * power)[0::2][: number - power]
        return slopes + more

    line = ide.TokenDomain.uniform(2)
    bias = ide.LinearBias(heads, scale=3.0).score_bias(line, line)
    np.testing.assert_allclose(-bias[:, 0, 1], 3.0 * np.array(published(heads)), rtol=1e-15)


def test_rotary_scores_depend_on_differences(key):
    operator = ide.Attention(WIDTH, 4, key=key, positions=ide.Rotary(), std=0.5)
    u = state()
    shifted = ide.TokenDomain(DOMAIN.points + 17.5)
    assert largest(apply(operator, u, DOMAIN), apply(operator, u, shifted)) < 1e-12
    order = np.array([3, 1, 5, 0, 2, 4])
    assert largest(apply(operator, u[order], DOMAIN), apply(operator, u, DOMAIN)[order]) > 1e-3


def test_rotary_turns_by_the_position():
    """Features i and i + d/2 of a head are one complex number, times exp(i x base^(-2i/d))."""
    x = state(width=8)[:, None, :]
    turned = np.asarray(apply(ide.Rotary(base=100.0), x))
    angle = np.arange(TOKENS)[:, None, None] * 100.0 ** (-np.arange(4) / 4)
    x = np.asarray(x)
    expected = (x[..., :4] + 1j * x[..., 4:]) * np.exp(1j * angle)
    assert np.abs(turned[..., :4] + 1j * turned[..., 4:] - expected).max() < 1e-14


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        (ide.relu, lambda x: np.maximum(x, 0)),
        (ide.gelu, lambda x: 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))),
        (
            ide.gelu_tanh,
            lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
        ),
    ],
)
def test_feed_forward(key, activation, expected):
    operator = ide.FeedForward(WIDTH, 12, key=key, activation=activation, std=0.5)
    u = np.asarray(state())
    inner = u @ np.asarray(operator.inner.weight) + np.asarray(operator.inner.bias)
    out = expected(inner) @ np.asarray(operator.outer.weight) + np.asarray(operator.outer.bias)
    assert largest(apply(operator, jnp.asarray(u), DOMAIN), out) < 1e-13


def test_gated_feed_forward(key):
    operator = ide.GatedFeedForward(WIDTH, key=key, std=0.5)
    u = np.asarray(state())
    gate = u @ np.asarray(operator.gate.weight)
    inner = u @ np.asarray(operator.inner.weight)
    out = (gate / (1 + np.exp(-gate)) * inner) @ np.asarray(operator.outer.weight)
    assert largest(apply(operator, jnp.asarray(u), DOMAIN), out) < 1e-13


def test_dropout_is_a_function_of_its_key(key):
    inner = ide.FeedForward(WIDTH, key=key)
    u = state(64)
    plain = np.asarray(apply(inner, u))
    assert (apply(ide.Dropout(inner, 0.25), u) == plain).all()
    dropped = np.asarray(apply(ide.Dropout(inner, 0.25, key), u))
    zeros = dropped == 0
    assert abs(zeros.mean() - 0.25) < 0.02
    assert np.abs(np.where(zeros, 0, dropped * 0.75 - plain)).max() < 1e-14
