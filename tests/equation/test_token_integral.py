"""The token integral in all its forms, against a loop over tokens and plain operations."""

import functools as ft
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equation.integrals import (
    DOMAIN,
    REGIONS,
    TOKENS,
    by_hand,
    compiled_in_parts,
    derivatives,
    in_parts,
    make_inputs,
    plain,
)
from helpers import built, fast_first, largest, random_state

import ide_transformer as ide
from ide_transformer.equation import RESIDUALS, integrate
from ide_transformer.equation.operators.quadrature.blocks import Stream
from ide_transformer.equation.operators.quadrature.integrate import fused_mean, prepare
from ide_transformer.equation.operators.quadrature.token_mean import token_mean


# Dense is in one block.
KINDS = ["blocks", "stream"]
# Some are zero; each query sees another one.
WEIGHTS = np.where(np.arange(TOKENS) % 4 == 1, 0, 1 + np.arange(TOKENS) / 9)
ENDS = np.where(np.arange(TOKENS) % 5 == 2, 0, 0.5 * WEIGHTS)
CIRCLE = ide.TokenDomain.periodic(TOKENS, length=2.0)
compiled = eqx.filter_jit(integrate)


@pytest.mark.parametrize(
    ("kind", "region"), [("dense", "near"), *itertools.product(KINDS, REGIONS)]
)
def test_every_form_equals_a_loop_over_tokens(kind, region):
    inputs, near = make_inputs(), region == "near"
    region = ide.Neighborhood(0.3) if near else REGIONS[region]
    domain = ide.TokenDomain(DOMAIN.points, jnp.asarray(WEIGHTS), DOMAIN.grid)
    options = dict(weights=WEIGHTS)
    if near:
        # The first points of a circle are near the last ones.
        domain = ide.TokenDomain(CIRCLE.points, jnp.asarray(WEIGHTS), period=(2.0,))
        options |= dict(positions=2 * np.arange(TOKENS) / TOKENS, period=2.0)
    ours = compiled_in_parts(kind, *inputs, region, domain=domain)
    assert largest(ours, by_hand(inputs, region, **options)) < 1e-13


def plain_with_ends(query, key, value, weights, ends, inside, with_ends):
    """In plain operations; the weight of a point in its own integral is that of an end."""
    own = with_ends * ends + (1 - with_ends) * weights
    each = (jnp.broadcast_to(w, inside.shape) for w in (own, weights))
    return plain(query, key, value, jnp.where(jnp.eye(TOKENS, dtype=bool), *each), inside)


# In each region, or with ends.
CASES = [("blocks", "ends"), ("stream", "window"), ("stream", "ends")]
CASES += [(k, r) for k in KINDS for r in [*REGIONS, "ends"] if (k, r) not in CASES]


@pytest.mark.parametrize(("kind", "region"), fast_first(3, CASES, heavy=2))
def test_derivatives_of_every_form(kind, region):
    """First and second ones, also with respect to weights that are zero."""
    with_ends = region == "ends"
    region = REGIONS["past" if with_ends else region]
    primals = (*make_inputs(), jnp.asarray(WEIGHTS), jnp.asarray(ENDS))

    def ours(query, key, value, weights, ends):
        domain = ide.TokenDomain(DOMAIN.points, weights, DOMAIN.grid)
        if with_ends:
            points = DOMAIN.points
            domain = ide.TokenDomain(points, weights, ends=points.T, end_weights=ends[None])
        return in_parts(kind, query, key, value, region, domain=domain)

    seen = region.indicator(DOMAIN, DOMAIN)
    inside = jnp.broadcast_to(True if seen is None else seen, (TOKENS, TOKENS))
    expected = derivatives(plain_with_ends, primals, inside, jnp.asarray(float(with_ends)))
    found = derivatives(ours, primals)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert largest(a, b) < 1e-11 * (1 + largest(b, 0))


@pytest.mark.parametrize(("region", "seen"), [("window", 64), ("near", 67)])
def test_blocks_that_are_not_seen_are_left_out(region, seen):
    inputs, domain = make_inputs(130), ide.TokenDomain.uniform(130)
    region = REGIONS[region]
    traced = jax.jit(lambda *x: integrate(*x, domain, domain, region)).trace(*inputs)
    ours = traced.lower().compile()(*inputs)
    assert largest(ours, by_hand(inputs, region)) < 1e-13
    # The first 64 queries see so many of the points only.
    assert f",64,{seen}]" in str(traced.jaxpr)


@pytest.mark.parametrize("circle", [True, False])
def test_points_around_a_circle_and_in_any_order(circle):
    """With several blocks of queries, none of which is left out."""
    tokens = 130 if circle else 70
    inputs, positions = make_inputs(tokens), np.random.default_rng(0).permutation(tokens)
    if circle:
        points = ide.TokenDomain.uniform(tokens).points
        domain = ide.TokenDomain(points, grid=(tokens,), period=(float(tokens),))
        region, options = REGIONS["near"], dict(period=tokens)
    else:
        domain = ide.TokenDomain(jnp.asarray(positions, float)[:, None])
        region, options = ide.Volterra(), dict(positions=positions)
    ours = compiled(*inputs, domain, domain, region)
    assert largest(ours, by_hand(inputs, region, **options)) < 1e-13


def test_a_bias_of_the_scores():
    inputs = make_inputs()
    bias = np.random.default_rng(5).normal(size=(4, TOKENS, TOKENS))
    ours = compiled_in_parts("blocks", *inputs, ide.Volterra(), bias=jnp.asarray(bias))
    assert largest(ours, by_hand(inputs, ide.Volterra(), bias=bias)) < 1e-13


SAMPLES = make_inputs(), make_inputs(seed=7)
BATCH = [jnp.asarray(np.stack(x)) for x in zip(*SAMPLES, strict=True)]
MASKS = np.arange(TOKENS)[None] < np.array([[TOKENS], [11]])


def each_by_hand(region):
    pairs = zip(SAMPLES, MASKS, strict=True)
    return np.stack([by_hand(inputs, region, weights=mask) for inputs, mask in pairs])


@pytest.mark.parametrize("kind", KINDS)
def test_samples_of_a_batch_are_apart(kind):
    domain = DOMAIN.padded(jnp.asarray(MASKS))
    both = compiled_in_parts(kind, *BATCH, ide.Fredholm(), domain=domain)
    assert largest(both, each_by_hand(ide.Fredholm())) < 1e-13


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_of_lower_precision_than_the_weights_may_be_padding_only(kind):
    inputs = [x[None].astype(np.float32) for x in map(np.asarray, make_inputs())]
    domain = DOMAIN.padded(jnp.zeros((1, TOKENS), bool))
    mean = compiled_in_parts(kind, *inputs, ide.Fredholm(), domain=domain)
    assert largest(mean[0, 0, 0], np.mean(inputs[2][0, :, 0], axis=0)) < 1e-6


@pytest.mark.parametrize("tokens, others, block", [(1, 1, 3), (5, 12, 5), (11, 4, 3)])
def test_points_of_another_number(tokens, others, block):
    inputs = make_inputs(tokens)[0], *make_inputs(others, seed=1)[1:]
    domains = ide.TokenDomain.uniform(tokens), ide.TokenDomain.uniform(others)

    @jax.jit
    def streamed(*inputs):
        integrand, restore = prepare(*inputs, *domains, None)
        return restore(token_mean(integrand, Stream(ide.Fredholm(), block, False)).mean)

    assert largest(streamed(*inputs), by_hand(inputs, ide.Fredholm())) < 1e-14


@pytest.mark.parametrize(("region", "padded"), [("past", True), ("window", False)])
def test_the_fused_form_has_the_same_mathematics(region, padded):
    region, domain = REGIONS[region], DOMAIN.padded(MASKS) if padded else DOMAIN
    fused = eqx.filter_jit(fused_mean)(*BATCH, domain, region, implementation="xla")
    # JAX computes the scores in float32, whatever the dtype of the inputs.
    if padded:
        assert largest(fused, each_by_hand(region)) < 1e-6
    else:
        assert largest(fused[0], by_hand(SAMPLES[0], region)) < 1e-6


def test_low_precision_accumulates_in_float32():
    low = (x.astype(jnp.bfloat16) for x in make_inputs())
    mean = compiled(*low, DOMAIN, DOMAIN, ide.Volterra())
    assert mean.dtype == jnp.float32
    assert largest(mean, by_hand(make_inputs(), ide.Volterra())) < 0.05


def test_queries_that_see_padding_only_stay_finite():
    query, key, value = make_inputs()
    domain = DOMAIN.padded(jnp.asarray(np.arange(TOKENS) > 4))

    def total(query):
        return jnp.sum(in_parts("stream", query, key, value, ide.Volterra(), domain=domain))

    assert np.isfinite(jax.jit(jax.grad(total))(query)).all()


@ft.partial(jax.jit, static_argnums=0)
def pulled_back(f, inputs, cotangent, *rest):
    mean, pullback = jax.vjp(lambda *x: f(*x, *rest), *inputs)
    return mean, *pullback(cotangent)


def plain_of_all(query, key, value, inside):
    return plain(query, key, value, jnp.ones(TOKENS), inside, -1e300)


@pytest.mark.parametrize("kind", KINDS)
def test_a_query_that_sees_nothing_gets_the_mean_of_all_values(kind):
    inputs, points = make_inputs(), ide.TokenDomain(DOMAIN.points)
    # The first two queries come before all points.
    places = ide.TokenDomain(points.points - 2)
    cotangent = np.sin(np.arange(inputs[0].size)).reshape(inputs[0].shape)

    def ours(*inputs):
        return in_parts(kind, *inputs, ide.Volterra(), domain=points, places=places)

    inside = ide.Volterra().indicator(places, points)
    found = pulled_back(ours, inputs, cotangent)
    expected = pulled_back(plain_of_all, inputs, cotangent, inside)
    assert largest(found[0][0, 0], np.mean(inputs[2][:, 0], axis=0)) < 1e-14
    for a, b in zip(found, expected, strict=True):
        assert largest(a, b) < 1e-12


@pytest.mark.parametrize(("kind", "times"), [(ide.Attention, 300), (ide.SinkhornAttention, 3)])
def test_gradients_of_padded_weights_stay_finite(kind, times, key):
    """Scores of padding are the largest; from the first token on, nothing is seen."""
    operator = built(lambda: kind(8, 2, key=key), std=1.0)
    u = np.array(random_state(width=8))
    u[3:] *= times

    def total(weights, u, there):
        domain = ide.TokenDomain(jnp.arange(6.0)[:, None], weights)
        return jnp.sum(operator(u, domain.padded(there)))

    gradients_of = jax.jit(jax.grad(total, argnums=(0, 1)))
    for number in (3, 0):
        for gradient in gradients_of(np.ones(6), u, np.arange(6) < number):
            assert np.isfinite(gradient).all()


def test_a_gradient_that_keeps_the_residuals_does_not_integrate_again():
    query, key, value = make_inputs()
    kept = jax.checkpoint_policies.save_only_these_names(*RESIDUALS)

    def exponentials(policy):
        def total(query):
            mean = integrate(query, key, value, DOMAIN, DOMAIN, ide.Volterra())
            return jnp.sum(mean**2)

        gradient = jax.grad(jax.checkpoint(total, policy=policy))
        return str(jax.make_jaxpr(gradient)(query)).count(" exp ")

    assert exponentials(kept) == exponentials(None) - 1
