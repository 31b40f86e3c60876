"""Attention to the state and to a source, and the positions of tokens."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equation.problems import apply, attended, block_at, project, softmax_kernel, state
from helpers import WIDTH, built, largest

import ide_transformer as ide


OTHERS, SEEN = 7, 6
SOURCE_DOMAIN = ide.TokenDomain.uniform(OTHERS)
WEIGHTS = np.array([0.5, 1.0, 2.0, 0.0, 0.3, 1.0, 0.1])


@eqx.filter_jit
def score_bias(positions, domain):
    return positions.score_bias(domain, domain)


def crossed(heads=4, **options):
    options |= dict(source_features=SEEN, normalization=ide.LayerNorm(), key=jax.random.key(0))
    return built(lambda: ide.CrossAttention(WIDTH, heads, **options))


@pytest.mark.parametrize("heads, key_bias", [(1, True), (4, False)])
def test_attention_to_a_source_equals_numpy(heads, key_bias):
    """With weights of the source for each sample, and padding."""
    operator = crossed(heads, key_bias=key_bias)
    assert (operator.key.bias is None) != key_bias
    u, f = state(2, 3), state(2, 3, tokens=OTHERS, width=SEEN)
    weights = WEIGHTS * (np.arange(OTHERS) < np.array([[[7], [4], [5]], [[6], [7], [1]]]))
    domain = ide.TokenDomain(SOURCE_DOMAIN.points, jnp.asarray(weights))
    rate = apply(operator.with_source(f, domain), u)
    v, f = np.asarray(project(operator.normalization, u)), np.asarray(f)
    for sample in np.ndindex(2, 3):
        sides = v[sample], f[sample], f[sample], weights[sample]
        expected = attended(operator, *sides, softmax_kernel)
        assert largest(rate[sample], expected) < 1e-12


def test_sources_of_both_kinds_in_one_equation():
    """Each operator sees its own: the order in which they are put in does not matter."""
    u, f, g = state(), state(tokens=OTHERS, width=SEEN), state(seed=9)
    theta = ide.Tied((crossed(), ide.Relaxation(2.0)), 1)
    inside = ide.Sourced(ide.Sourced(theta, g), f, SOURCE_DOMAIN)
    outside = ide.Sourced(ide.Sourced(theta, f, SOURCE_DOMAIN), g)
    expected = apply(crossed().with_source(f, SOURCE_DOMAIN), u) + 2 * (g - u)
    for control in (inside, outside):
        rates = [apply(operator, u) for operator in block_at(control, 0.0)]
        assert largest(sum(rates), expected) < 1e-13


def test_slopes_are_those_of_press_and_others():
    """Their code: those of the next lower power of two, and every second one of its double."""
    eight, line = 2.0 ** -np.arange(1, 9), ide.TokenDomain.uniform(2)
    for slopes in (eight, np.append(eight, 2.0 ** (-np.arange(1, 9, 2) / 2))):
        bias = np.asarray(score_bias(ide.LinearBias(len(slopes), scale=3.0), line))
        np.testing.assert_allclose(-bias[:, 0, 1] / 3, slopes, rtol=1e-15)


def test_buckets_of_distances_are_those_of_t5():
    """Their code, of both directions: half of the buckets for tokens that come later."""
    table, line = jnp.arange(32.0).reshape(16, 2), ide.TokenDomain.uniform(60)
    found = np.asarray(score_bias(ide.RelativeBias(table, 40), line))
    for x, z in ((0, 0), (3, 0), (4, 0), (9, 0), (50, 0), (0, 3), (0, 4), (0, 17), (2, 59)):
        bucket = distance = abs(z - x)
        if distance >= 4:
            bucket = min(int(4 + np.log(distance / 4) / np.log(40 / 4) * 4), 7)
        bucket += 8 * (z > x)
        assert found[:, x, z].tolist() == [2 * bucket, 2 * bucket + 1]
