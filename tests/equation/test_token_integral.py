"""The token integral in all its forms, against a loop over tokens and plain operations."""

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
from helpers import fast_first, largest

import ide_transformer as ide
from ide_transformer.equation import RESIDUALS, integrate
from ide_transformer.equation.operators.quadrature.blocks import Stream
from ide_transformer.equation.operators.quadrature.integrate import fused_mean, prepare
from ide_transformer.equation.operators.quadrature.token_mean import token_mean


KINDS = ["dense", "blocks", "stream"]
# Some are zero; each query sees another one.
WEIGHTS = np.where(np.arange(TOKENS) % 4 == 1, 0, 1 + np.arange(TOKENS) / 9)
ENDS = np.where(np.arange(TOKENS) % 5 == 2, 0, 0.5 * WEIGHTS)
CIRCLE = ide.TokenDomain.periodic(TOKENS, length=2.0)
compiled = eqx.filter_jit(integrate)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("region", REGIONS)
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


# Derivatives of every form, with respect to weights too, in each region or with ends.
CASES = [("dense", "all"), ("blocks", "ends"), ("stream", "window"), ("stream", "ends")]
CASES += [(k, r) for k in KINDS for r in [*REGIONS, "ends"] if (k, r) not in CASES]


@pytest.mark.parametrize(("kind", "region"), fast_first(4, CASES, heavy=2))
def test_derivatives_of_every_form(kind, region):
    """First and second ones, also with respect to weights that are zero."""
    ends, own = region == "ends", jnp.eye(TOKENS, dtype=bool)
    region = REGIONS["past" if ends else region]
    inside = region.indicator(DOMAIN, DOMAIN)
    primals = (*make_inputs(), jnp.asarray(WEIGHTS), *([jnp.asarray(ENDS)] if ends else []))

    def ours(query, key, value, weights, *ends):
        domain = ide.TokenDomain(DOMAIN.points, weights, DOMAIN.grid)
        if ends:
            points = DOMAIN.points
            domain = ide.TokenDomain(points, weights, ends=points.T, end_weights=ends[0][None])
        return in_parts(kind, query, key, value, region, domain=domain)

    def theirs(query, key, value, *weights):
        each = [jnp.broadcast_to(w, own.shape) for w in weights]
        return plain(query, key, value, jnp.where(own, each[-1], each[0]), inside)

    found, expected = (derivatives(f, *primals) for f in (ours, theirs))
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


@pytest.mark.parametrize("kind", ["dense", "blocks"])
def test_a_bias_of_the_scores(kind):
    inputs = make_inputs()
    bias = np.random.default_rng(5).normal(size=(4, TOKENS, TOKENS))
    ours = compiled_in_parts(kind, *inputs, ide.Volterra(), bias=jnp.asarray(bias))
    assert largest(ours, by_hand(inputs, ide.Volterra(), bias=bias)) < 1e-13


@pytest.mark.parametrize("kind", ["blocks", "stream"])
def test_samples_of_a_batch_are_apart(kind):
    batch = [jnp.stack(x) for x in zip(make_inputs(), make_inputs(seed=7), strict=True)]
    mask = jnp.asarray(np.arange(TOKENS)[None] < np.array([[TOKENS], [11]]))

    def padded(inputs, mask):
        return in_parts(kind, *inputs, ide.Fredholm(), domain=DOMAIN.padded(mask))

    both = jax.jit(padded)(batch, mask)
    assert largest(both[1], jax.jit(padded)([x[1] for x in batch], mask[1])) < 1e-14


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_of_lower_precision_than_the_weights_may_be_padding_only(kind):
    inputs = [x[None].astype(jnp.float32) for x in make_inputs()]
    domain = DOMAIN.padded(jnp.zeros((1, TOKENS), bool))
    mean = compiled_in_parts(kind, *inputs, ide.Fredholm(), domain=domain)
    assert largest(mean[0, 0, 0], np.mean(inputs[2][0, :, 0], axis=0)) < 1e-6


@pytest.mark.parametrize("tokens, others, block", [(1, 1, 3), (5, 12, 5), (11, 4, 3)])
def test_forms_agree_with_points_of_another_number(tokens, others, block):
    query, (_, key, value) = make_inputs(tokens)[0], make_inputs(others, seed=1)
    domains = ide.TokenDomain.uniform(tokens), ide.TokenDomain.uniform(others)

    def difference(query, key, value):
        dense = integrate(query, key, value, *domains, ide.Fredholm())
        integrand, restore = prepare(query, key, value, *domains, None)
        streamed = token_mean(integrand, Stream(ide.Fredholm(), block, False))
        return jnp.max(jnp.abs(restore(streamed.mean) - dense))

    assert float(jax.jit(difference)(query, key, value)) < 1e-14


@pytest.mark.parametrize(("region", "padded"), [("past", True), ("window", False)])
def test_the_fused_form_has_the_same_mathematics(region, padded):
    inputs, domain = [jnp.stack([x, x]) for x in make_inputs()], DOMAIN
    if padded:
        domain = domain.padded(np.arange(TOKENS)[None] < np.array([[TOKENS], [19]]))
    region = REGIONS[region]
    fused = eqx.filter_jit(fused_mean)(*inputs, domain, region, implementation="xla")
    ours = compiled(*inputs, domain, domain, region)
    # JAX computes the scores in float32, whatever the dtype of the inputs.
    assert largest(fused, ours) < 1e-6


def test_low_precision_accumulates_in_float32():
    inputs, where = [x.astype(jnp.float32) for x in make_inputs()], (DOMAIN, DOMAIN)
    mean = compiled(*(x.astype(jnp.bfloat16) for x in inputs), *where, ide.Volterra())
    assert mean.dtype == jnp.float32
    assert largest(mean, compiled(*inputs, *where, ide.Volterra())) < 0.05


def test_queries_that_see_padding_only_stay_finite():
    query, key, value = make_inputs()
    domain = DOMAIN.padded(jnp.asarray(np.arange(TOKENS) > 4))

    def total(query):
        return jnp.sum(in_parts("stream", query, key, value, ide.Volterra(), domain=domain))

    assert np.isfinite(jax.jit(jax.grad(total))(query)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_query_that_sees_nothing_gets_the_mean_of_all_values(kind):
    inputs, points = make_inputs(), ide.TokenDomain(DOMAIN.points)
    # The first two queries come before all points.
    places = ide.TokenDomain(points.points - 2)
    cotangent = jnp.asarray(np.sin(np.arange(inputs[0].size))).reshape(inputs[0].shape)
    inside = ide.Volterra().indicator(places, points)

    def ours(*inputs):
        return in_parts(kind, *inputs, ide.Volterra(), domain=points, places=places)

    def theirs(*inputs):
        return plain(*inputs, jnp.ones(TOKENS), inside, -1e300)

    def both(f):
        mean, pullback = jax.vjp(f, *inputs)
        return mean, *pullback(cotangent)

    found, expected = (jax.jit(lambda f=f: both(f))() for f in (ours, theirs))
    assert largest(found[0][0, 0], np.mean(inputs[2][:, 0], axis=0)) < 1e-14
    for a, b in zip(found, expected, strict=True):
        assert largest(a, b) < 1e-12


@pytest.mark.parametrize(("kind", "times"), [(ide.Attention, 300), (ide.SinkhornAttention, 3)])
@pytest.mark.parametrize("first", [3, 0])
def test_gradients_of_padded_weights_stay_finite(kind, times, first, key):
    """Scores of padding are the largest; from the first token on, nothing is seen."""
    operator = kind(8, 2, key=key, std=1.0)
    u = jnp.asarray(np.random.default_rng(2).normal(size=(6, 8))).at[3:].multiply(times)

    def total(weights, u):
        domain = ide.TokenDomain(jnp.arange(6.0)[:, None], weights)
        return jnp.sum(operator(u, domain.padded(jnp.arange(6) < first)))

    for gradient in jax.jit(jax.grad(total, argnums=(0, 1)))(jnp.ones(6), u):
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
