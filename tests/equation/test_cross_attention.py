"""The token integral over a second domain."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equation.problems import apply, block_at, equations_of, project, state
from helpers import WIDTH, largest
from published.numpy_blocks import linear

import ide_transformer as ide


TOKENS, OTHERS, SEEN = 5, 7, 6
DOMAIN = ide.TokenDomain.uniform(TOKENS)
SOURCE_DOMAIN = ide.TokenDomain.uniform(OTHERS)
WEIGHTS = jnp.array([0.5, 1.0, 2.0, 0.0, 0.3, 1.0, 0.1])


def operator(heads=4, **options):
    options = dict(source_features=SEEN, std=0.5, normalization=ide.LayerNorm()) | options
    made = ide.CrossAttention(WIDTH, heads, key=jax.random.key(0), **options)
    return jax.tree.map(lambda x: x if x.any() else _waves(x.size), made)


def _waves(size):
    return jnp.asarray(0.3 * np.cos(np.arange(size)))


def numpy_cross_attention(weights, v, f, quadrature):
    """Head by head, for one normalised state v and one source f."""
    query, key, value = (
        np.split(linear(x, y), weights.heads, axis=-1)
        for x, y in ((weights.query, v), (weights.key, f), (weights.value, f))
    )
    means = []
    for q, k, x in zip(query, key, value, strict=True):
        kernel = np.exp(q @ k.T / np.sqrt(q.shape[-1])) * quadrature
        means.append(kernel @ x / kernel.sum(-1, keepdims=True))
    return linear(weights.output, np.concatenate(means, axis=-1))


@pytest.mark.parametrize("heads, key_bias", [(1, True), (4, False)])
def test_it_equals_numpy(heads, key_bias):
    weights = operator(heads, key_bias=key_bias)
    assert (weights.key.bias is None) != key_bias
    u, f = state(2, 3, tokens=TOKENS), state(2, 3, tokens=OTHERS, width=SEEN)
    domain = ide.TokenDomain(SOURCE_DOMAIN.points, WEIGHTS)
    rate = apply(weights.with_source(f, domain), u, DOMAIN)
    v, f = np.asarray(project(weights.normalization, u)), np.asarray(f)
    for sample in np.ndindex(2, 3):
        expected = numpy_cross_attention(weights, v[sample], f[sample], np.asarray(WEIGHTS))
        assert largest(rate[sample], expected) < 1e-12


def test_on_the_domain_of_the_state_it_is_attention():
    weights = operator(source_features=WIDTH, normalization=ide.Free())
    attention = ide.Attention(WIDTH, 4, key=jax.random.key(0))
    attention = jax.tree.unflatten(jax.tree.structure(attention), jax.tree.leaves(weights))
    u = state(tokens=TOKENS)
    rate = apply(weights.with_source(u, DOMAIN), u, DOMAIN)
    assert largest(rate, apply(attention, u, DOMAIN)) < 1e-14


def test_padding_of_the_source_has_no_influence():
    weights, u = operator(), state(2, tokens=TOKENS)
    f = state(2, tokens=OTHERS, width=SEEN)
    mask = jnp.asarray(np.arange(OTHERS)[None] < np.array([[OTHERS], [4]]))
    domain = SOURCE_DOMAIN.padded(mask)
    rate = apply(weights.with_source(f, domain), u, DOMAIN)
    other = apply(weights.with_source(f.at[1, 4:].add(10), domain), u, DOMAIN)
    assert (rate == other).all()
    assert (
        largest(rate[0], apply(weights.with_source(f.at[0, 4:].add(10), domain), u, DOMAIN)[0])
        > 1
    )
    cut = apply(weights.with_source(f[1, :4], ide.TokenDomain.uniform(4)), u[1], DOMAIN)
    assert largest(rate[1], cut) < 1e-14


def test_the_integral_over_the_second_domain_converges():
    """Against Gauss–Legendre on 40 points; f is smooth on [0, 1] and not periodic."""
    weights, u = operator(), state(tokens=TOKENS)

    def rate(points, quadrature):
        # Filled up with padding to one number of points, so that one program serves all.
        points, quadrature = (np.pad(x, (0, 40 - len(x))) for x in (points, quadrature))
        f = jnp.asarray(np.sin(points[:, None] * np.arange(1.0, SEEN + 1)[None]) + 1)
        domain = ide.TokenDomain(jnp.asarray(points)[:, None], jnp.asarray(quadrature))
        return apply(weights.with_source(f, domain), u, DOMAIN)

    nodes, gauss = np.polynomial.legendre.leggauss(40)
    exact = rate((nodes + 1) / 2, gauss / 2)
    steps, errors = np.array([8, 16, 32]), {1: [], 2: []}
    for n in steps:
        equal = np.full(n + 1, 1 / n)
        trapezoid = np.concatenate([[0.5 / n], equal[1:-1], [0.5 / n]])
        for order, quadrature in ((1, equal), (2, trapezoid)):
            errors[order].append(largest(rate(np.linspace(0, 1, n + 1), quadrature), exact))
    for order in (1, 2):
        observed = -np.polyfit(np.log(steps), np.log(errors[order]), 1)[0]
        assert abs(observed - order) < 0.15


def test_gradients_are_finite_and_those_of_finite_differences():
    """With padding, whose scores are the most negative numbers."""
    weights, u = operator(), state(tokens=TOKENS)
    f = state(tokens=OTHERS, width=SEEN)
    domain = ide.TokenDomain(SOURCE_DOMAIN.points, WEIGHTS)

    def loss(weights, u, f):
        return jnp.sum(jnp.sin(apply(weights.with_source(f, domain), u, DOMAIN)))

    compiled = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))
    _, gradients = compiled(weights, u, f)
    assert all(np.isfinite(x).all() and x.any() for x in jax.tree.leaves(gradients))
    assert not gradients[2][3].any()
    point = jax.tree.map(np.asarray, (weights, u, f))
    away, h = jax.tree.map(np.cos, point), 1e-5
    ahead, behind = (
        compiled(*jax.tree.map(lambda x, d, s=s: jnp.asarray(x + s * d), point, away))[0]
        for s in (h, -h)
    )
    along = jax.tree.map(lambda x, d: float(np.sum(x * d)), gradients, away)
    slope = sum(jax.tree.leaves(along))
    assert abs(slope - float(ahead - behind) / (2 * h)) < 1e-7 * abs(slope)


@pytest.mark.parametrize("own", [False, True])
def test_the_integral_is_a_product_in_the_dtype_of_the_weights(own):
    """Every product, of attention to a source and to the state, is one of bfloat16; the rate
    has the dtype of the state."""
    low = jnp.bfloat16

    def cast(x):
        return x.astype(low if x.ndim == 2 else jnp.float32)

    u, f = (jnp.asarray(x, jnp.float32) for x in (state(tokens=5), state(tokens=7, width=SEEN)))
    if own:
        weights = jax.tree.map(cast, ide.Attention(WIDTH, 4, key=jax.random.key(0)))
    else:
        weights = jax.tree.map(cast, operator()).with_source(f, SOURCE_DOMAIN)
    traced = jax.make_jaxpr(lambda u: weights(u, DOMAIN))(u)
    products = [x for x in equations_of(traced.jaxpr) if x.primitive.name == "dot_general"]
    # Queries, keys, values, scores, means and the output.
    assert len(products) == 6
    assert all(v.aval.dtype == low for x in products for v in x.invars)
    assert traced.out_avals[0].dtype == u.dtype


def test_sources_of_both_kinds_in_one_equation():
    """Each operator sees its own: the order in which they are put in does not matter."""
    u = state(tokens=TOKENS)
    f, g = state(tokens=OTHERS, width=SEEN), state(tokens=TOKENS, seed=9)
    theta = ide.Tied((operator(), ide.Relaxation(2.0)), 1)
    inside = ide.Sourced(ide.Sourced(theta, g), f, SOURCE_DOMAIN)
    outside = ide.Sourced(ide.Sourced(theta, f, SOURCE_DOMAIN), g)
    expected = apply(operator().with_source(f, SOURCE_DOMAIN), u, DOMAIN) + 2 * (g - u)
    for control in (inside, outside, inside.resample(2)):
        cross, relaxation = block_at(control, 0.0)
        rate = apply(cross, u, DOMAIN) + apply(relaxation, u, DOMAIN)
        assert largest(rate, expected) < 1e-13
