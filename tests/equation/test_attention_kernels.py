"""Kernels of attention against their published blocks in NumPy."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equation.problems import apply, attended, softmax_kernel, state
from helpers import HEADS, WIDTH, built, largest
from published.numpy_blocks import layer_norm, linear

import ide_transformer as ide


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


def linear_kernel(query, key):
    query, key = (np.where(x > 0, 1 + x, np.exp(x)) for x in (query, key))
    return query @ key.swapaxes(1, 2)


def gaussian_kernel(query, key):
    square = ((query[:, :, None] - key[:, None]) ** 2).sum(-1)
    return np.exp(-square / 2 / np.sqrt(query.shape[-1]))


def sinkhorn(query, key):
    """The kernel itself, scaled by turns; rows last."""
    gamma, shares = softmax_kernel(query, key), matrix(SIMPSON, False)[0] / POINTS[-1]
    for _ in range(3):
        gamma = gamma / (gamma * shares).sum(-1, keepdims=True)
        gamma = gamma / (gamma * shares[:, None]).sum(-2, keepdims=True)
    return gamma


CASES = [
    ("LinearAttention", linear_kernel, UNIFORM, {}),
    ("LinearAttention", linear_kernel, SIMPSON, dict(causal=True)),
    ("GaussianAttention", gaussian_kernel, SIMPSON, {}),
    ("Attention", softmax_kernel, SIMPSON, {}),
    ("Attention", softmax_kernel, SIMPSON, dict(causal=True)),
    ("SinkhornAttention", softmax_kernel, SIMPSON, dict(iterations=0)),
    ("SinkhornAttention", sinkhorn, SIMPSON, dict(iterations=3)),
]


def made(name, **options):
    return built(lambda: getattr(ide, name)(WIDTH, HEADS, key=KEY, **options), std=0.3)


@pytest.mark.parametrize(("name", "kernel", "domain", "options"), CASES)
def test_kernels_are_their_published_blocks(name, kernel, domain, options):
    operator, u = made(name, **options), np.asarray(state(tokens=TOKENS))
    expected = attended(operator, u, u, u, matrix(domain, options.get("causal")), kernel)
    assert largest(apply(operator, u, domain), expected) < 1e-12
    # Points with ends may stand in any order.
    if domain is SIMPSON and options.get("causal"):
        order = np.array([3, 0, 6, 4, 1, 5, 2])
        ends = dict(ends=domain.ends[:, order], end_weights=domain.end_weights[:, order])
        mixed = ide.TokenDomain(domain.points[order], domain.weights[order], **ends)
        assert largest(apply(operator, u[order], mixed), expected[order]) < 1e-12


def test_galerkin_attention_is_its_published_block():
    operator, u = made("GalerkinAttention"), np.asarray(state(tokens=TOKENS))
    query, key, value = (
        linear(x, u).reshape(TOKENS, HEADS, -1).swapaxes(0, 1)
        for x in (operator.query, operator.key, operator.value)
    )
    shares = matrix(SIMPSON, False)[0] / POINTS[-1]
    mixed = query @ (layer_norm(key).swapaxes(1, 2) * shares @ layer_norm(value))
    expected = linear(operator.output, mixed.swapaxes(0, 1).reshape(TOKENS, -1))
    assert largest(apply(operator, u, SIMPSON), expected) < 1e-12


def test_where_linear_attention_sees_nothing_it_is_zero():
    """In a sample of padding only, before the first token of a text that is padded on the
    left, and where φ is zero to rounding."""
    u, left = np.asarray(state(2, tokens=TOKENS)), np.arange(TOKENS) >= 3
    domain = UNIFORM.padded(jnp.asarray([left, [False] * TOKENS]))
    for causal in (False, True):
        operator = made("LinearAttention", causal=causal)
        operator = eqx.tree_at(lambda x: x.output.bias, operator, jnp.ones(WIDTH))
        far = eqx.tree_at(lambda x: x.key.bias, operator, jnp.full(WIDTH, -1000.0))
        rate, nothing = (np.asarray(apply(x, u, domain)) for x in (operator, far))
        assert largest(rate[1], 1) == largest(nothing, 1) == 0
    assert largest(rate[0, :3], 1) == 0
    alone = apply(operator, u[0, 3:], ide.TokenDomain.uniform(4))
    assert largest(rate[0, 3:], alone) < 1e-13
