"""Attention among slices, by hand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import ide_transformer as ide
from tests.helpers import built, largest
from tests.published.numpy_blocks import layer_norm, linear, softmax


WIDTH, HEADS, SLICES, TOKENS = 8, 2, 3, 11
OPERATOR = built(
    lambda: ide.contrib.SliceAttention(
        WIDTH, HEADS, SLICES, normalization=ide.LayerNorm(eps=1e-5), key=jax.random.key(0)
    )
)


@eqx.filter_jit
def apply(operator, u, domain):
    return operator(u, domain)


def by_hand(operator, u, weights):
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
    weighted = apply(OPERATOR, jnp.asarray(u), ide.TokenDomain(points, jnp.asarray(weights)))
    assert largest(weighted, by_hand(OPERATOR, u, weights)) < 1e-12
    plain = apply(OPERATOR, jnp.asarray(u), ide.TokenDomain(points))
    assert largest(plain, by_hand(OPERATOR, u, np.ones(TOKENS))) < 1e-12
