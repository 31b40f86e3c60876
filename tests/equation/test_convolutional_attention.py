"""Attention whose queries, keys and values are convolutions over a grid, against NumPy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import drawn, largest

import ide_transformer as ide
from ide_transformer.models.images import image_domain


FEATURES, HEADS = 6, 2


def attention(**options):
    """One with random vectors, also in the place of ones and zeros."""
    operator = ide.ConvolutionalAttention(
        FEATURES,
        HEADS,
        key=jax.random.key(0),
        std=0.4,
        normalization=ide.LayerNorm(),
        **options,
    )

    def changed(x):
        noise = np.random.default_rng(x.size).normal(size=x.shape)
        return jnp.asarray(np.asarray(x) + 0.1 * noise**2) if x.ndim == 1 else x

    return jax.tree.map(changed, operator)


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
            if wraps:
                row, column = row % rows, column % columns
            if 0 <= row < rows and 0 <= column < columns:
                total += weight[a, b] * grid[row, column]
        if p.statistics is not None:
            mean, variance = map(np.asarray, (p.statistics.mean, p.statistics.variance))
            total = (total - mean) / np.sqrt(variance + 1e-5)
        out.append(total * np.asarray(p.gain) + np.asarray(p.bias))
    return np.array(out)


def weights_of_keys(operator, domain):
    if domain.weights is None:
        return 1.0
    first, weights = np.split(np.asarray(domain.weights), [domain.prefix])
    stride = operator.key_convolution.stride
    return np.concatenate([first, weights.reshape(domain.grid)[::stride, ::stride].ravel()])


def expected(operator, u, domain):
    u = np.asarray(u)
    v = u - u.mean(-1, keepdims=True)
    v /= np.sqrt((v**2).mean(-1, keepdims=True) + 1e-5)
    first, grid = v[: domain.prefix], v[domain.prefix :].reshape(*domain.grid, FEATURES)
    heads = []
    for name in ("query", "key", "value"):
        projection, linear = getattr(operator, f"{name}_convolution"), getattr(operator, name)
        tokens = convolved(projection, grid, wraps=domain.period is not None)
        tokens = np.concatenate([first, tokens])
        tokens = tokens @ np.asarray(linear.weight) + np.asarray(linear.bias)
        heads.append(tokens.reshape(len(tokens), HEADS, -1))
    q, k, v = heads
    s = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(FEATURES / HEADS)
    gamma = weights_of_keys(operator, domain) * np.exp(s)
    gamma /= gamma.sum(-1, keepdims=True)
    mean = np.einsum("hij,jhd->ihd", gamma, v).reshape(len(u), -1)
    return mean @ np.asarray(operator.output.weight) + np.asarray(operator.output.bias)


@pytest.mark.parametrize(
    ("domain", "options"),
    [
        (image_domain((4, 2), 1, (4, 2), area_weights=False), dict(statistics=True)),
        (ide.TokenDomain.periodic((3, 6)), dict(width=5, stride=3)),
        (image_domain((4, 6), 1, (2, 3), area_weights=True), {}),
        (ide.TokenDomain.uniform((4, 6)).weighted(lambda x: 1 + x[:, 0] * x[:, 1]), {}),
    ],
)
def test_it_equals_numpy(domain, options):
    operator, u = attention(**options), state(domain)
    assert largest(eqx.filter_jit(operator)(u, domain), expected(operator, u, domain)) < 1e-13


def test_the_integral_of_keys_runs_over_every_second_point():
    operator, domain = attention(), image_domain((4, 2), 1, (4, 2), area_weights=False)
    coarse = operator.coarse_domain(domain)
    assert (coarse.grid, coarse.spacing, coarse.prefix) == ((2, 1), (2.0, 2.0), 1)
    np.testing.assert_array_equal(coarse.points, [[1.5, 0.5], [0, 0], [2, 0]])
    # With a class token a line is not 0, 1, 2, ….
    assert not ide.TokenDomain(jnp.arange(3.0)[:, None], grid=(2,), prefix=1).consecutive


def test_statistics_have_no_gradient():
    domain = image_domain((2, 2), 1, (2, 2), area_weights=False)
    gradient = jax.jit(jax.grad(lambda operator: jnp.sum(operator(state(domain), domain) ** 2)))
    found = gradient(attention(statistics=True)).key_convolution
    assert not any(x.any() for x in jax.tree.leaves(found.statistics)) and found.gain.any()
