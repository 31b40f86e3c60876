"""Attention whose queries, keys and values are convolutions over a grid, against NumPy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equation.problems import attended, softmax_kernel
from helpers import built, drawn, largest
from published.numpy_blocks import layer_norm

import ide_transformer as ide
from ide_transformer.models.images import image_domain


FEATURES, HEADS = 6, 2


def attention(**options):
    """One with random vectors, also in the place of ones and zeros."""
    options |= dict(key=jax.random.key(0), normalization=ide.LayerNorm())
    operator = built(lambda: ide.ConvolutionalAttention(FEATURES, HEADS, **options))
    return jax.tree.map(lambda x: 1 + x**2 if x.ndim == 1 else x, operator)


def state(domain, seed=1):
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


def expected(operator, u, domain):
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
    operator, u = attention(**options), state(domain)
    assert largest(eqx.filter_jit(operator)(u, domain), expected(operator, u, domain)) < 1e-13


def test_statistics_have_no_gradient():
    domain = image_domain((2, 2), 1, (2, 2), area_weights=False)
    gradient = jax.jit(jax.grad(lambda operator: jnp.sum(operator(state(domain), domain) ** 2)))
    found = gradient(attention(statistics=True)).key_convolution
    assert not any(x.any() for x in jax.tree.leaves(found.statistics)) and found.gain.any()
