"""The token integral over a second domain."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import WIDTH, largest, random_state
from published.numpy_blocks import linear, softmax

import ide_transformer as ide


TOKENS, OTHERS, SEEN = 5, 7, 6
DOMAIN = ide.TokenDomain.uniform(TOKENS)
SOURCE_DOMAIN = ide.TokenDomain.uniform(OTHERS)
WEIGHTS = jnp.array([0.5, 1.0, 2.0, 0.0, 0.3, 1.0, 0.1])


def operator(heads=4, **options):
    options = dict(source_features=SEEN, std=0.5, normalization=ide.LayerNorm()) | options
    made = ide.CrossAttention(WIDTH, heads, key=jax.random.key(0), **options)
    return jax.tree.map(lambda x: x if x.any() else 0.3 * jnp.cos(jnp.arange(x.size)), made)


def numpy_cross_attention(weights, u, f, quadrature):
    """Head by head, for one state u and one source f."""
    v = np.asarray(weights.normalization.project(u))
    query, key, value = (
        np.split(linear(x, y), weights.heads, axis=-1)
        for x, y in ((weights.query, v), (weights.key, f), (weights.value, f))
    )
    means = []
    for q, k, x in zip(query, key, value, strict=True):
        kernel = np.exp(q @ k.T / np.sqrt(q.shape[-1])) * quadrature
        means.append(kernel @ x / kernel.sum(-1, keepdims=True))
    return linear(weights.output, np.concatenate(means, axis=-1))


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("key_bias", [True, False])
def test_it_equals_numpy(heads, key_bias):
    weights = operator(heads, key_bias=key_bias)
    assert (weights.key.bias is None) != key_bias
    u, f = random_state(2, 3, tokens=TOKENS), random_state(2, 3, tokens=OTHERS, width=SEEN)
    domain = ide.TokenDomain(SOURCE_DOMAIN.points, WEIGHTS)
    rate = weights.with_source(f, domain)(u, DOMAIN)
    for i, j in np.ndindex(2, 3):
        source, quadrature = np.asarray(f[i, j]), np.asarray(WEIGHTS)
        expected = numpy_cross_attention(weights, u[i, j], source, quadrature)
        assert largest(rate[i, j], expected) < 1e-12


def test_equal_weights_are_the_softmax():
    weights, u = operator(), random_state(tokens=TOKENS)
    f = random_state(tokens=OTHERS, width=SEEN)
    rate = weights.with_source(f, SOURCE_DOMAIN)(u, DOMAIN)
    v, f = np.asarray(weights.normalization.project(u)), np.asarray(f)
    query = np.split(linear(weights.query, v), 4, axis=-1)
    key, value = (np.split(linear(x, f), 4, axis=-1) for x in (weights.key, weights.value))
    means = [softmax(q @ k.T / 2) @ v for q, k, v in zip(query, key, value, strict=True)]
    expected = linear(weights.output, np.concatenate(means, axis=-1))
    assert largest(rate, expected) < 1e-12


def test_on_the_domain_of_the_state_it_is_attention():
    weights = operator(source_features=WIDTH, normalization=ide.Free())
    attention = ide.Attention(WIDTH, 4, key=jax.random.key(0))
    attention = jax.tree.unflatten(jax.tree.structure(attention), jax.tree.leaves(weights))
    u = random_state(tokens=TOKENS)
    assert largest(weights.with_source(u, DOMAIN)(u, DOMAIN), attention(u, DOMAIN)) < 1e-14


def test_padding_of_the_source_has_no_influence():
    weights, u = operator(), random_state(2, tokens=TOKENS)
    f = random_state(2, tokens=OTHERS, width=SEEN)
    mask = jnp.array([[True] * OTHERS, [True] * 4 + [False] * 3])
    domain = SOURCE_DOMAIN.padded(mask)
    rate = weights.with_source(f, domain)(u, DOMAIN)
    other = weights.with_source(f.at[1, 4:].add(10), domain)(u, DOMAIN)
    assert (rate == other).all()
    assert largest(rate[0], weights.with_source(f.at[0, 4:].add(10), domain)(u, DOMAIN)[0]) > 1
    cut = weights.with_source(f[1, :4], ide.TokenDomain.uniform(4))(u[1], DOMAIN)
    assert largest(rate[1], cut) < 1e-14


@pytest.mark.parametrize("rule, order", [("trapezoid", 2), ("equal", 1)])
def test_the_integral_over_the_second_domain_converges(rule, order):
    """Against Gauss–Legendre on 40 points; f is smooth on [0, 1] and not periodic."""
    weights, u = operator(), random_state(tokens=TOKENS)

    def rate(points, quadrature):
        points = jnp.asarray(points)
        f = jnp.sin(points[:, None] * jnp.arange(1.0, SEEN + 1)[None, :]) + 1
        domain = ide.TokenDomain(points[:, None], jnp.asarray(quadrature))
        return weights.with_source(f, domain)(u, DOMAIN)

    nodes, gauss = np.polynomial.legendre.leggauss(40)
    exact = rate((nodes + 1) / 2, gauss / 2)
    steps, errors = np.array([8, 16, 32, 64]), []
    for n in steps:
        quadrature = np.full(n + 1, 1 / n)
        if rule == "trapezoid":
            quadrature[[0, -1]] /= 2
        errors.append(largest(rate(np.linspace(0, 1, n + 1), quadrature), exact))
    assert abs(-np.polyfit(np.log(steps), np.log(errors), 1)[0] - order) < 0.15


def test_gradients_are_finite_and_those_of_finite_differences():
    """With padding, whose scores are the most negative numbers."""
    weights, u = operator(), random_state(tokens=TOKENS)
    f = random_state(tokens=OTHERS, width=SEEN)
    domain = ide.TokenDomain(SOURCE_DOMAIN.points, WEIGHTS)

    def loss(weights, u, f):
        return jnp.sum(jnp.sin(weights.with_source(f, domain)(u, DOMAIN)))

    gradients = jax.grad(loss, argnums=(0, 1, 2))(weights, u, f)
    assert all(jnp.isfinite(x).all() and x.any() for x in jax.tree.leaves(gradients))
    assert not gradients[2][3].any()
    away, h = jax.tree.map(jnp.cos, (weights, u, f)), 1e-5
    ahead, behind = (
        loss(*jax.tree.map(lambda x, d, s=s: x + s * d, (weights, u, f), away)) for s in (h, -h)
    )
    along = jax.tree.map(lambda x, d: float(jnp.sum(x * d)), gradients, away)
    slope = sum(jax.tree.leaves(along))
    assert abs(slope - float(ahead - behind) / (2 * h)) < 1e-7 * abs(slope)


def test_sources_of_both_kinds_in_one_equation():
    """Each operator sees its own: the order in which they are put in does not matter."""
    u = random_state(tokens=TOKENS)
    f, g = random_state(tokens=OTHERS, width=SEEN), random_state(tokens=TOKENS, seed=9)
    theta = ide.Tied((operator(), ide.Relaxation(2.0)), 1)
    inside = ide.Sourced(ide.Sourced(theta, g), f, SOURCE_DOMAIN)
    outside = ide.Sourced(ide.Sourced(theta, f, SOURCE_DOMAIN), g)
    expected = operator().with_source(f, SOURCE_DOMAIN)(u, DOMAIN) + 2 * (g - u)
    for control in (inside, outside, inside.resample(2)):
        rate = ide.Equation(control, ide.Free(), DOMAIN).vector_field(0.0, u)
        assert largest(rate, expected) < 1e-13


def test_what_does_not_fit(unchecked):
    weights, u = operator(), random_state(2, tokens=TOKENS)
    f = random_state(2, tokens=OTHERS, width=SEEN)
    with pytest.raises(ide.InputError, match="3 heads do not divide a width of 16"):
        operator(3)
    for without in (weights, weights.with_source(u)):
        with pytest.raises(ide.InputError, match="no states of a second domain"):
            without(u, DOMAIN)
    for wrong in (f[0], f[:, :-1], f[..., :-1]):
        with pytest.raises(ide.InputError, match=r"source has shape .* need \(2, 7, 6\)"):
            weights.with_source(wrong, SOURCE_DOMAIN)(u, DOMAIN)
    with pytest.raises(ide.InputError, match="acts on 16 features"):
        weights.with_source(f, SOURCE_DOMAIN)(u[..., :-1], DOMAIN)
