"""Attention to the state and to a source: kernels against published blocks, convolutional
attention, and positions."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer.models.images import image_domain
from tests.equation.problems import apply, attended, project, softmax_kernel, state
from tests.helpers import HEADS, WIDTH, built, drawn, largest
from tests.published.numpy_blocks import layer_norm


OTHERS = 7
SOURCE_DOMAIN = ide.TokenDomain.uniform(OTHERS)
MASSES = np.array([0.5, 1.0, 2.0, 0.0, 0.3, 1.0, 0.1])


@eqx.filter_jit
def score_bias(positions, domain):
    return positions.score_bias(domain, domain)


def crossed(**options):
    options |= dict(normalization=ide.LayerNorm(), key=jax.random.key(0))
    return built(lambda: ide.CrossAttention(WIDTH, 4, **options))


def test_attention_to_a_source_equals_numpy():
    operator = crossed()
    u, f = state(2, 3), state(2, 3, tokens=OTHERS, width=WIDTH)
    weights = MASSES * (np.arange(OTHERS) < np.array([[[7], [4], [5]], [[6], [7], [1]]]))
    domain = ide.TokenDomain(SOURCE_DOMAIN.points, jnp.asarray(weights))
    rate = apply(operator.with_source(f, domain), u)
    v, f = np.asarray(project(operator.normalization, u)), np.asarray(f)
    for sample in np.ndindex(2, 3):
        sides = v[sample], f[sample], f[sample], weights[sample]
        expected = attended(operator, *sides, softmax_kernel)
        assert largest(rate[sample], expected) < 1e-12


def test_slopes_are_those_of_press_and_others():
    """Their code: slopes of the next lower power of two, then every second of its double."""
    eight, line = 2.0 ** -np.arange(1, 9), ide.TokenDomain.uniform(2)
    for slopes in (eight, np.append(eight, 2.0 ** (-np.arange(1, 9, 2) / 2))):
        bias = np.asarray(score_bias(ide.equation.LinearBias(len(slopes), scale=3.0), line))
        np.testing.assert_allclose(-bias[:, 0, 1] / 3, slopes, rtol=1e-15)


TOKENS, KEY = 7, jax.random.key(0)
POINTS = np.cumsum([0.0, 0.3, 0.4, 0.4, 0.5, 0.7, 0.9])
SIMPSON = ide.TokenDomain.simpson(jnp.asarray(POINTS))
UNIFORM = ide.TokenDomain.uniform(TOKENS)


def matrix(domain, causal):
    """The weight of each point in the integral of each query."""
    weights = np.ones((TOKENS, TOKENS))
    if domain.weights is not None:
        weights = np.tile(domain.weights, (TOKENS, 1))
    for x, lag in itertools.product(range(TOKENS), range(3)):
        if causal and domain.end_weights is not None and x >= lag:
            weights[x, x - lag] = domain.end_weights[lag, x - lag]
    return np.tril(weights) if causal else weights


@pytest.mark.parametrize("causal", [False, True])
def test_the_kernel_is_the_softmax_with_the_weights_of_a_rule(causal):
    operator = built(lambda: ide.Attention(WIDTH, HEADS, key=KEY, causal=causal), std=0.3)
    u = np.asarray(state(tokens=TOKENS))
    expected = attended(operator, u, u, u, matrix(SIMPSON, causal), softmax_kernel)
    assert largest(apply(operator, u, SIMPSON), expected) < 1e-12
    # Points with ends may stand in any order.
    if causal:
        order = np.array([3, 0, 6, 4, 1, 5, 2])
        ends = dict(ends=SIMPSON.ends[:, order], end_weights=SIMPSON.end_weights[:, order])
        mixed = ide.TokenDomain(SIMPSON.points[order], SIMPSON.weights[order], **ends)
        assert largest(apply(operator, u[order], mixed), expected[order]) < 1e-12


FEATURES, CONVOLVED_HEADS = 6, 2


def convolutional(**options):
    """An operator with random vectors instead of ones and zeros."""
    options |= dict(key=jax.random.key(0), normalization=ide.LayerNorm())
    operator = built(lambda: ide.ConvolutionalAttention(FEATURES, CONVOLVED_HEADS, **options))
    return jax.tree.map(lambda x: 1 + x**2 if x.ndim == 1 else x, operator)


def grid_state(domain, seed=1):
    return drawn((domain.num_tokens, FEATURES), seed)


def convolved(projection, grid, *, wraps):
    """One output after the other, a sum over its window."""
    p, (rows, columns) = projection, grid.shape[:2]
    weight, out = np.asarray(p.weight), []
    for i, j in np.ndindex(rows // p.stride, columns // p.stride):
        total = np.zeros(FEATURES)
        for a, b in np.ndindex(weight.shape[:2]):
            row, column = (p.stride * np.array([i, j]) + [a, b]) - len(weight) // 2
            if wraps or (0 <= row < rows and 0 <= column < columns):
                total += weight[a, b] * grid[row % rows, column % columns]
        if p.statistics is not None:
            mean, variance = map(np.asarray, (p.statistics.mean, p.statistics.variance))
            total = (total - mean) / np.sqrt(variance + 1e-5)
        out.append(total * np.asarray(p.gain) + np.asarray(p.bias))
    return np.array(out)


def by_convolutions(operator, u, domain):
    v, wraps = layer_norm(u), domain.period is not None
    first, grid = v[: domain.prefix], v[domain.prefix :].reshape(*domain.grid, FEATURES)
    maps = (getattr(operator, f"{name}_convolution") for name in ("query", "key", "value"))
    tokens = [np.concatenate([first, convolved(x, grid, wraps=wraps)]) for x in maps]
    weights = 1.0
    if domain.weights is not None:
        first, weights = np.split(np.asarray(domain.weights), [domain.prefix])
        stride = operator.key_convolution.stride
        weights = weights.reshape(domain.grid)[::stride, ::stride].ravel()
        weights = np.concatenate([first, weights])
    return attended(operator, *tokens, weights, softmax_kernel)


@pytest.mark.parametrize(
    ("domain", "options"),
    [
        (image_domain((4, 2), 1, (4, 2), area_weights=False), dict(statistics=True)),
        (ide.TokenDomain.periodic((3, 6)), dict(width=5, stride=3)),
        (image_domain((4, 6), 1, (2, 3), area_weights=True), {}),
    ],
)
def test_it_equals_numpy(domain, options):
    operator, u = convolutional(**options), grid_state(domain)
    assert (
        largest(eqx.filter_jit(operator)(u, domain), by_convolutions(operator, u, domain))
        < 1e-13
    )


def test_statistics_have_no_gradient():
    domain = image_domain((2, 2), 1, (2, 2), area_weights=False)
    gradient = jax.jit(
        jax.grad(lambda operator: jnp.sum(operator(grid_state(domain), domain) ** 2))
    )
    slopes = gradient(convolutional(statistics=True)).key_convolution
    assert not any(x.any() for x in jax.tree.leaves(slopes.statistics)) and slopes.gain.any()
