"""Kernels of attention against their published blocks in NumPy."""

import functools as ft
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equation.problems import apply, state
from helpers import HEADS, WIDTH, largest
from published.numpy_blocks import layer_norm, linear

import ide_transformer as ide


TOKENS = 7
POINTS = np.cumsum([0.0, 0.3, 0.4, 0.4, 0.5, 0.7, 0.9])
SIMPSON = ide.TokenDomain.simpson(jnp.asarray(POINTS))
UNIFORM = ide.TokenDomain.uniform(TOKENS)


def heads(operator, u):
    """Queries, keys and values, `[heads, tokens, features]`."""
    for projection in (operator.query, operator.key, operator.value):
        yield linear(projection, u).reshape(len(u), HEADS, -1).transpose(1, 0, 2)


def joined(operator, mixed):
    return linear(operator.output, mixed.transpose(1, 0, 2).reshape(mixed.shape[1], -1))


def matrix(domain, causal):
    """The weight of each point in the integral of each query."""
    if domain.weights is None:
        weights = np.ones((TOKENS, TOKENS))
    else:
        weights = np.tile(domain.weights, (TOKENS, 1))
    if not causal:
        return weights
    for x, lag in itertools.product(range(TOKENS), range(3)):
        if domain.end_weights is not None and x >= lag:
            weights[x, x - lag] = domain.end_weights[lag, x - lag]
    return np.tril(weights)


def galerkin(operator, u, weights):
    query, key, value = heads(operator, u)
    key, value = (layer_norm(x, eps=1e-5) for x in (key, value))
    shares = weights[0] / weights[0].sum()
    return joined(operator, query @ (key.transpose(0, 2, 1) * shares @ value))


def kernel(operator, u, weights, gamma):
    query, key, value = heads(operator, u)
    gamma = gamma(query, key) * weights
    return joined(operator, gamma / gamma.sum(-1, keepdims=True) @ value)


def linear_kernel(query, key):
    query, key = (np.where(x > 0, 1 + x, np.exp(x)) for x in (query, key))
    return query @ key.transpose(0, 2, 1)


def gaussian_kernel(query, key):
    square = ((query[:, :, None] - key[:, None]) ** 2).sum(-1)
    return np.exp(-square / 2 / np.sqrt(query.shape[-1]))


def sinkhorn(operator, u, weights):
    """The kernel itself, scaled by turns; rows last."""
    query, key, value = heads(operator, u)
    gamma = np.exp(query @ key.transpose(0, 2, 1) / np.sqrt(query.shape[-1]))
    shares = weights[0] / weights[0].sum()
    for _ in range(operator.iterations):
        gamma = gamma / (gamma * shares).sum(-1, keepdims=True)
        gamma = gamma / (gamma * shares[:, None]).sum(-2, keepdims=True)
    gamma = gamma / (gamma * shares).sum(-1, keepdims=True)
    return joined(operator, (gamma * shares) @ value)


BLOCKS = {
    "GalerkinAttention": galerkin,
    "LinearAttention": lambda *x: kernel(*x, linear_kernel),
    "GaussianAttention": lambda *x: kernel(*x, gaussian_kernel),
    "SinkhornAttention": sinkhorn,
}
CASES = [
    *((name, False) for name in BLOCKS),
    ("LinearAttention", True),
    ("GaussianAttention", True),
]


@pytest.mark.parametrize("domain", [UNIFORM, SIMPSON], ids=["text", "simpson"])
@pytest.mark.parametrize(("name", "causal"), CASES)
def test_kernels_are_their_published_blocks(key, name, causal, domain):
    options = {"causal": True} if causal else {}
    operator = getattr(ide, name)(WIDTH, HEADS, key=key, std=0.3, **options)
    u = state(tokens=TOKENS)
    expected = BLOCKS[name](operator, np.asarray(u), matrix(domain, causal))
    assert largest(apply(operator, u, domain), expected) < 1e-12


@eqx.filter_jit
@ft.partial(eqx.filter_value_and_grad, has_aux=True)
def squared(operator, u, domain):
    """The square of the rate of the last tokens of the first sample, and all rates."""
    rate = operator(u, domain)
    return jnp.sum(rate[0, -4:] ** 2), rate


@pytest.mark.parametrize("causal", [False, True])
def test_where_linear_attention_sees_nothing_it_is_zero(key, causal):
    """In a sample of padding only, before the first token of a text that is padded on the
    left, and where φ is zero to rounding. The gradient is that of the other tokens."""
    operator = ide.LinearAttention(WIDTH, HEADS, key=key, std=0.3, causal=causal)
    operator = eqx.tree_at(lambda x: x.output.bias, operator, jnp.ones(WIDTH))
    u, left = np.asarray(state(2, tokens=TOKENS)), np.arange(TOKENS) >= 3
    domain = UNIFORM.padded(jnp.asarray([left, [False] * TOKENS]))
    (_, rate), here = squared(operator, u, domain)
    (_, alone), there = squared(operator, u[:1, 3:], ide.TokenDomain.uniform(4))
    assert largest(rate[0, 3:], alone[0]) < 1e-13
    assert largest(rate[1], 1) == 0
    assert not causal or largest(rate[0, :3], 1) == 0
    for x, y in zip(jax.tree.leaves(here), jax.tree.leaves(there), strict=True):
        assert largest(x, y) < 1e-12
    far = eqx.tree_at(lambda x: x.key.bias, operator, jnp.full(WIDTH, -1000.0))
    (_, rate), _ = squared(far, u, UNIFORM.padded(jnp.ones((2, TOKENS), bool)))
    assert largest(rate, 1) == 0


def test_a_sample_that_is_padding_only_has_no_mean(key):
    mask = np.array([[False] * TOKENS, [True] * TOKENS])
    domain, u = UNIFORM.padded(mask), state(2, tokens=TOKENS)
    assert largest(domain.mean(u), np.stack([np.zeros(WIDTH), np.mean(u[1], axis=0)])) < 1e-14
    attention = ide.Attention(WIDTH, HEADS, key=key, causal=True)
    assert np.isfinite(apply(attention, u, domain)).all()


def test_mass_is_conserved_in_the_limit_and_without_iterations_it_is_the_softmax(key):
    u = state(tokens=TOKENS)
    plain = ide.SinkhornAttention(WIDTH, HEADS, key=key, std=0.3, iterations=0)
    softmaxed = ide.Attention(WIDTH, HEADS, key=key, std=0.3)
    assert largest(apply(plain, u, SIMPSON), apply(softmaxed, u, SIMPSON)) < 1e-13
    weighted = ide.TokenDomain(UNIFORM.points, jnp.ones(TOKENS))
    gradient = eqx.filter_jit(jax.grad(lambda u, domain: jnp.sum(plain(u, domain) ** 2)))
    assert largest(gradient(u, UNIFORM), gradient(u, weighted)) < 1e-13
    # Values that are a constant stay it, and the mean of others is kept.
    operator = ide.SinkhornAttention(WIDTH, HEADS, key=key, std=0.3, iterations=200)
    means = [SIMPSON.mean(v) for v in (apply(operator, u, SIMPSON), operator.value(u))]
    assert largest(means[0], operator.output(means[1])) < 1e-10


@pytest.mark.parametrize("name", ["Attention", "LinearAttention"])
def test_points_with_ends_may_be_in_any_order(key, name):
    operator = getattr(ide, name)(WIDTH, HEADS, key=key, std=0.3, causal=True)
    order, u = np.array([3, 0, 6, 4, 1, 5, 2]), state(tokens=TOKENS)
    ends, end_weights = SIMPSON.ends[:, order], SIMPSON.end_weights[:, order]
    mixed = ide.TokenDomain(
        SIMPSON.points[order], SIMPSON.weights[order], ends=ends, end_weights=end_weights
    )
    assert largest(apply(operator, u[order], mixed), apply(operator, u, SIMPSON)[order]) < 1e-13
