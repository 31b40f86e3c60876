"""Attention among slices, by hand, on any mesh."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import ide_transformer as ide
from tests.helpers import built, largest
from tests.published.numpy_blocks import layer_norm


WIDTH, HEADS, SLICES, TOKENS = 8, 2, 3, 11
OPERATOR = built(
    lambda: ide.contrib.SliceAttention(
        WIDTH, HEADS, SLICES, normalization=ide.LayerNorm(eps=1e-5), key=jax.random.key(0)
    )
)


@eqx.filter_jit
def apply(operator, u, domain):
    return operator(u, domain)


def softmax(x):
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def by_hand(operator, u, weights):
    def linear(of, x):
        bias = 0 if of.bias is None else np.asarray(of.bias)
        return x @ np.asarray(of.weight) + bias

    v = layer_norm(u)
    shares = softmax(linear(operator.assignment, v).reshape(len(u), HEADS, SLICES))
    values = linear(operator.value, v).reshape(len(u), HEADS, -1)
    rate = np.zeros_like(values)
    for head in range(HEADS):
        a = shares[:, head] * weights[:, None]
        means = a.T @ values[:, head] / a.sum(0)[:, None]
        query, key, mixed = (
            linear(x, means) for x in (operator.query, operator.key, operator.mixing)
        )
        scores = query @ key.T / np.sqrt(WIDTH / HEADS)
        rate[:, head] = shares[:, head] @ softmax(scores) @ mixed
    return linear(operator.output, rate.reshape(len(u), WIDTH))


def test_it_is_attention_among_weighted_means():
    random = np.random.default_rng(0)
    u, weights = random.normal(size=(TOKENS, WIDTH)), random.random(TOKENS)
    points = jnp.asarray(random.random((TOKENS, 2)))
    found = apply(OPERATOR, jnp.asarray(u), ide.TokenDomain(points, jnp.asarray(weights)))
    assert largest(found, by_hand(OPERATOR, u, weights)) < 1e-12
    plain = apply(OPERATOR, jnp.asarray(u), ide.TokenDomain(points))
    assert largest(plain, by_hand(OPERATOR, u, np.ones(TOKENS))) < 1e-12


def test_it_converges_on_any_mesh():
    """With quadrature weights at points that are crowded, at the order of the rule."""
    mixing = np.random.default_rng(1).normal(size=(3, WIDTH))

    def at_zero(number):
        s = np.linspace(0, 1, number)
        x = s + np.sin(2 * np.pi * s) / 8
        u = np.stack([np.sin(3 * x), np.cos(2 * x), x**2], axis=-1) @ mixing
        domain = ide.TokenDomain.trapezoid(jnp.asarray(x))
        return apply(OPERATOR, jnp.asarray(u), ide.TokenDomain(domain.points, domain.weights))[
            0
        ]

    exact = at_zero(1025)
    errors = [largest(at_zero(number), exact) for number in (33, 65, 129)]
    assert np.allclose(np.log2(np.divide(errors[:-1], errors[1:])), 2, atol=0.15)
