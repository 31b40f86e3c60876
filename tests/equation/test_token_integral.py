"""The token integral in all its forms against a loop over tokens."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import largest
from hypothesis import given, settings, strategies as st

import ide_transformer as ide
from ide_transformer.equation.operators.quadrature import RESIDUALS, integrate
from ide_transformer.equation.operators.quadrature.blocks import Blocks
from ide_transformer.equation.operators.quadrature.fused import fused_mean
from ide_transformer.equation.operators.quadrature.integrate import prepare
from ide_transformer.equation.operators.quadrature.stream import Stream
from ide_transformer.equation.operators.quadrature.token_mean import token_mean


def by_hand(query, key, value, weights, positions, region, bias):
    """One query after the other, in NumPy; `[tokens, heads, features]`."""
    tokens, heads, features = query.shape
    shared = key.shape[1]
    out = np.zeros((tokens, heads, value.shape[-1]))
    for x in range(tokens):
        for h in range(heads):
            s = h // (heads // shared)
            scores = key[:, s] @ query[x, h] / math.sqrt(features)
            if bias is not None:
                scores = scores + bias[h, x]
            gamma = np.exp(scores - scores.max()) * weights
            if isinstance(region, ide.Volterra):
                distance = positions[x] - positions
                gamma = gamma * (distance >= 0)
                if region.window is not None:
                    gamma = gamma * (distance < region.window)
            out[x, h] = gamma @ value[:, s] / gamma.sum()
    return out


def make_inputs(tokens, heads=4, shared=2, features=6, seed=0):
    keys = jax.random.split(jax.random.key(seed), 4)
    query = jax.random.normal(keys[0], (tokens, heads, features))
    key = jax.random.normal(keys[1], (tokens, shared, features))
    value = jax.random.normal(keys[2], (tokens, shared, features))
    return query, key, value


REGIONS = {
    "all": ide.Fredholm(),
    "past": ide.Volterra(),
    "window": ide.Volterra(window=5),
}
TOKENS = 23


def in_parts(kind, query, key, value, domain, region, bias=None):
    """The integral with a form and blocks of a size that tests can afford."""
    integrand, restore = prepare(query, key, value, domain, bias)
    places = (ide.TokenDomain(domain.points),) * 2
    quadrature = quadrature_of(kind, region, in_order=domain.consecutive)
    return restore(token_mean(integrand, places, quadrature).mean)


def quadrature_of(kind, region, *, in_order):
    if kind == "stream":
        return Stream(region, 4, in_order)
    size = TOKENS if kind == "dense" else 7
    starts = range(0, TOKENS, size)
    return Blocks(region, tuple((a, min(a + size, TOKENS), 0, TOKENS) for a in starts))


@pytest.mark.parametrize("kind", ["dense", "blocks", "stream"])
@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_every_form_equals_a_loop_over_tokens(kind, region, weighted):
    query, key, value = make_inputs(TOKENS)
    domain = ide.TokenDomain.uniform(TOKENS)
    weights = np.ones(TOKENS)
    if weighted:
        weights = np.random.default_rng(0).uniform(0.1, 2, TOKENS)
        weights[-3:] = 0
        domain = ide.TokenDomain(domain.points, jnp.asarray(weights), domain.consecutive)
    ours = in_parts(kind, query, key, value, domain, REGIONS[region])
    positions = np.arange(TOKENS)
    theirs = by_hand(
        *map(np.asarray, (query, key, value)), weights, positions, REGIONS[region], None
    )
    assert largest(ours, theirs) < 1e-13


@pytest.mark.parametrize("region", ["past", "window"])
@pytest.mark.parametrize("tokens", [130, 300])
def test_blocks_that_are_not_seen_are_left_out(region, tokens):
    query, key, value = make_inputs(tokens)
    domain = ide.TokenDomain.uniform(tokens)
    ours = integrate(query, key, value, domain, domain, REGIONS[region])
    theirs = by_hand(
        *map(np.asarray, (query, key, value)),
        np.ones(tokens),
        np.arange(tokens),
        REGIONS[region],
        None,
    )
    assert largest(ours, theirs) < 1e-13
    products = str(
        jax.make_jaxpr(lambda q: integrate(q, key, value, domain, domain, REGIONS[region]))(
            query
        )
    )
    # The first queries see 64 of the points only.
    assert ",64,64]" in products


def test_points_in_any_order_are_right():
    query, key, value = make_inputs(200)
    order = np.random.default_rng(0).permutation(200).astype(float)
    domain = ide.TokenDomain(jnp.asarray(order)[:, None])
    ours = integrate(query, key, value, domain, domain, ide.Volterra())
    theirs = by_hand(
        *map(np.asarray, (query, key, value)), np.ones(200), order, ide.Volterra(), None
    )
    assert largest(ours, theirs) < 1e-13


@pytest.mark.parametrize("kind", ["dense", "blocks"])
def test_a_bias_of_the_scores(kind):
    query, key, value = make_inputs(TOKENS)
    bias = jax.random.normal(jax.random.key(5), (4, TOKENS, TOKENS))
    domain = ide.TokenDomain.uniform(TOKENS)
    ours = in_parts(kind, query, key, value, domain, ide.Volterra(), bias)
    theirs = by_hand(
        *map(np.asarray, (query, key, value)),
        np.ones(TOKENS),
        np.arange(TOKENS),
        ide.Volterra(),
        np.asarray(bias),
    )
    assert largest(ours, theirs) < 1e-13


def test_a_part_of_the_queries_sees_what_it_saw():
    query, key, value = make_inputs(TOKENS)
    domain = ide.TokenDomain.uniform(TOKENS)
    whole = integrate(query, key, value, domain, domain, ide.Volterra())
    places = ide.TokenDomain(domain.points[9:11])
    part = integrate(query[9:11], key, value, domain, places, ide.Volterra())
    assert largest(part, whole[9:11]) < 1e-14


def plain(query, key, value, log_weights, inside, outside=-jnp.inf):
    """The same mathematics with nothing but operations that JAX differentiates itself."""
    repeats = query.shape[-2] // key.shape[-2]
    key, value = (jnp.repeat(x, repeats, axis=-2) for x in (key, value))
    s = jnp.einsum("xhd,zhd->hxz", query, key) / math.sqrt(query.shape[-1])
    s = s + jnp.broadcast_to(log_weights, s.shape)
    s = s if inside is None else jnp.where(jnp.broadcast_to(inside, s.shape), s, outside)
    return jnp.einsum("hxz,zhd->xhd", jax.nn.softmax(s, axis=-1), value)


@pytest.mark.parametrize("kind", ["dense", "blocks", "stream"])
@pytest.mark.parametrize("region", REGIONS)
def test_derivatives_of_every_form(kind, region):
    region = REGIONS[region]
    inputs = make_inputs(TOKENS)
    log_weights = 0.1 * jax.random.normal(jax.random.key(3), (TOKENS,))
    points = ide.TokenDomain.uniform(TOKENS).points

    def ours(query, key, value, log_weights):
        domain = ide.TokenDomain(points, jnp.exp(log_weights), True)
        return in_parts(kind, query, key, value, domain, region)

    def theirs(*args):
        places = ide.TokenDomain.uniform(TOKENS)
        return plain(*args, region.indicator(places, places))

    primals = (*inputs, log_weights)
    tangents = jax.tree.map(lambda x: jnp.cos(7 * x), primals)
    cotangent = jnp.sin(jnp.arange(ours(*primals).size, dtype=float)).reshape(
        ours(*primals).shape
    )
    for derivative in (
        lambda f: jax.jvp(f, primals, tangents)[1],
        lambda f: jax.vjp(f, *primals)[1](cotangent),
        # Forward over reverse: the derivative of a gradient.
        lambda f: jax.jvp(lambda *p: jax.vjp(f, *p)[1](cotangent)[0], primals, tangents)[1],
    ):
        for a, b in zip(
            jax.tree.leaves(derivative(ours)), jax.tree.leaves(derivative(theirs)), strict=True
        ):
            assert largest(a, b) < 1e-12


def test_samples_of_a_batch_are_apart():
    query, key, value = (
        jnp.stack([a, b])
        for a, b in zip(make_inputs(TOKENS), make_inputs(TOKENS, seed=7), strict=True)
    )
    domain = ide.TokenDomain.uniform(TOKENS)
    mask = jnp.array([[True] * TOKENS, [True] * 11 + [False] * (TOKENS - 11)])
    for kind in ("blocks", "stream"):
        both = in_parts(kind, query, key, value, domain.padded(mask), ide.Fredholm())
        mapped = jax.vmap(
            lambda q, k, v, m, kind=kind: in_parts(
                kind, q, k, v, domain.padded(m), ide.Fredholm()
            )
        )(query, key, value, mask)
        alone = in_parts(
            "dense", query[1], key[1], value[1], domain.padded(mask[1]), ide.Fredholm()
        )
        assert largest(both, mapped) < 1e-14
        assert largest(both[1], alone) < 1e-14


def test_queries_that_see_padding_only_stay_finite():
    query, key, value = make_inputs(TOKENS)
    domain = ide.TokenDomain.uniform(TOKENS).padded(jnp.arange(TOKENS) > 4)

    def total(query):
        return jnp.sum(in_parts("stream", query, key, value, domain, ide.Volterra()))

    assert np.isfinite(jax.value_and_grad(total)(query)[1]).all()


@pytest.mark.parametrize("kind", ["dense", "blocks", "stream"])
def test_a_query_that_sees_nothing_gets_the_mean_of_all_values(kind):
    query, key, value = make_inputs(TOKENS)
    points = ide.TokenDomain(jnp.arange(float(TOKENS))[:, None])
    # The first two queries lie before all points.
    places = ide.TokenDomain(points.points - 2)
    cotangent = jnp.sin(jnp.arange(float(query.size))).reshape(query.shape)

    def ours(query, key, value):
        integrand, restore = prepare(query, key, value, points, None)
        quadrature = quadrature_of(kind, ide.Volterra(), in_order=False)
        return restore(token_mean(integrand, (places, points), quadrature).mean)

    def theirs(query, key, value):
        inside = ide.Volterra().indicator(places, points)
        return plain(query, key, value, jnp.zeros(TOKENS), inside, -1e300)

    mean, pullback = jax.vjp(ours, query, key, value)
    expected, expected_pullback = jax.vjp(theirs, query, key, value)
    assert largest(mean[0, 0], jnp.mean(value[:, 0], axis=0)) < 1e-14
    assert largest(mean, expected) < 1e-13
    for a, b in zip(pullback(cotangent), expected_pullback(cotangent), strict=True):
        assert largest(a, b) < 1e-12


@pytest.mark.parametrize("kind", ["dense", "blocks", "stream"])
def test_a_state_of_lower_precision_than_the_weights_may_be_padding_only(kind):
    inputs = [x.astype(jnp.float32) for x in make_inputs(TOKENS)]
    domain = ide.TokenDomain.uniform(TOKENS).padded(jnp.zeros(TOKENS, bool))
    assert domain.weights.dtype == jnp.float64
    mean = in_parts(kind, *inputs, domain, ide.Fredholm())
    assert largest(mean[0, 0], jnp.mean(inputs[2][:, 0], axis=0)) < 1e-6


def test_a_checkpoint_that_keeps_the_residuals_does_not_integrate_again():
    query, key, value = make_inputs(TOKENS)
    domain = ide.TokenDomain.uniform(TOKENS)
    kept = jax.checkpoint_policies.save_only_these_names(*RESIDUALS)

    def exponentials(policy):
        def total(query):
            mean = integrate(query, key, value, domain, domain, ide.Volterra())
            return jnp.sum(mean**2)

        gradient = jax.grad(jax.checkpoint(total, policy=policy))
        return str(jax.make_jaxpr(gradient)(query)).count(" exp ")

    assert exponentials(kept) == exponentials(None) - 1


@settings(max_examples=10, deadline=None)
@given(
    tokens=st.integers(1, 12),
    others=st.integers(1, 12),
    block=st.integers(1, 5),
    seed=st.integers(0, 9),
)
def test_forms_agree_on_any_shape(tokens, others, block, seed):
    query, _, _ = make_inputs(tokens, seed=seed)
    _, key, value = make_inputs(others, seed=seed + 1)
    domain, places = ide.TokenDomain.uniform(others), ide.TokenDomain.uniform(tokens)
    dense = integrate(query, key, value, domain, places, ide.Fredholm())
    integrand, restore = prepare(query, key, value, domain, None)
    streamed = token_mean(integrand, (places, domain), Stream(ide.Fredholm(), block, False))
    assert largest(restore(streamed.mean), dense) < 1e-14


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("padded", [False, True])
def test_the_fused_form_has_the_same_mathematics(region, padded):
    query, key, value = (jnp.stack([x, x]) for x in make_inputs(TOKENS))
    domain = ide.TokenDomain.uniform(TOKENS)
    if padded:
        domain = domain.padded(jnp.array([[True] * TOKENS, [True] * 19 + [False] * 4]))
    fused = fused_mean(query, key, value, domain, REGIONS[region], implementation="xla")
    ours = integrate(query, key, value, domain, domain, REGIONS[region])
    # JAX computes the scores in float32, whatever the dtype of the inputs.
    assert largest(fused, ours) < 1e-6


def test_low_precision_accumulates_in_float32():
    inputs = [x.astype(jnp.float32) for x in make_inputs(TOKENS)]
    domain = ide.TokenDomain.uniform(TOKENS)
    exact = integrate(*inputs, domain, domain, ide.Volterra())
    low = [x.astype(jnp.bfloat16) for x in inputs]
    mean = integrate(*low, domain, domain, ide.Volterra())
    assert mean.dtype == jnp.float32
    assert largest(mean, exact) < 0.05
