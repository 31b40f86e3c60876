"""The token integral in all its forms against a loop over tokens."""

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
    in_parts,
    make_inputs,
)
from helpers import largest
from hypothesis import given, settings, strategies as st

import ide_transformer as ide
from ide_transformer.equation import Domains, integrate
from ide_transformer.equation.operators.quadrature.blocks import Stream
from ide_transformer.equation.operators.quadrature.integrate import fused_mean, prepare
from ide_transformer.equation.operators.quadrature.token_mean import token_mean


KINDS = ["dense", "blocks", "stream"]
BOTH = Domains(DOMAIN, DOMAIN)
compiled = eqx.filter_jit(integrate)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("region", REGIONS)
def test_every_form_equals_a_loop_over_tokens(kind, region):
    """With quadrature weights, some of them zero."""
    inputs = make_inputs()
    weights = np.random.default_rng(0).uniform(0.1, 2, TOKENS)
    weights[-3:] = 0
    domain = ide.TokenDomain(DOMAIN.points, jnp.asarray(weights), DOMAIN.grid)
    ours = compiled_in_parts(kind, *inputs, REGIONS[region], domain=domain)
    assert largest(ours, by_hand(inputs, REGIONS[region], weights=weights)) < 1e-13


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_points_of_a_circle_are_near_the_last_ones(kind):
    inputs, circle = make_inputs(), ide.TokenDomain.periodic(TOKENS, length=2.0)
    near, positions = ide.Neighborhood(0.3), 2 * np.arange(TOKENS) / TOKENS
    ours = compiled_in_parts(kind, *inputs, near, domain=circle)
    expected = by_hand(inputs, near, positions=positions, period=2.0)
    assert largest(ours, expected) < 1e-13


def test_no_block_of_a_circle_is_left_out():
    """Not even where its points are 0, 1, 2, …."""
    tokens, near = 130, REGIONS["near"]
    points = ide.TokenDomain.uniform(tokens).points
    circle = ide.TokenDomain(points, grid=(tokens,), period=(float(tokens),))
    inputs = make_inputs(tokens)
    ours = compiled(*inputs, Domains(circle, circle), near)
    assert largest(ours, by_hand(inputs, near, period=tokens)) < 1e-13


def test_a_stream_with_equal_weights_equals_a_loop_over_tokens():
    inputs = make_inputs()
    ours = compiled_in_parts("stream", *inputs, ide.Volterra())
    assert largest(ours, by_hand(inputs, ide.Volterra())) < 1e-13


@pytest.mark.parametrize("region", ["past", "window"])
def test_blocks_that_are_not_seen_are_left_out(region):
    inputs, domain = make_inputs(130), ide.TokenDomain.uniform(130)
    domains = Domains(domain, domain)
    traced = jax.jit(lambda *x: integrate(*x, domains, REGIONS[region])).trace(*inputs)
    ours = traced.lower().compile()(*inputs)
    assert largest(ours, by_hand(inputs, REGIONS[region])) < 1e-13
    # The first queries see 64 of the points only.
    assert ",64,64]" in str(traced.jaxpr)


def test_points_in_any_order_are_right():
    """With two blocks of queries."""
    inputs = make_inputs(70)
    order = np.random.default_rng(0).permutation(70).astype(float)
    domain = ide.TokenDomain(jnp.asarray(order)[:, None])
    ours = compiled(*inputs, Domains(domain, domain), ide.Volterra())
    assert largest(ours, by_hand(inputs, ide.Volterra(), positions=order)) < 1e-13


@pytest.mark.parametrize("kind", ["dense", "blocks"])
def test_a_bias_of_the_scores(kind):
    inputs = make_inputs()
    bias = np.random.default_rng(5).normal(size=(4, TOKENS, TOKENS))
    ours = compiled_in_parts(kind, *inputs, ide.Volterra(), bias=jnp.asarray(bias))
    assert largest(ours, by_hand(inputs, ide.Volterra(), bias=bias)) < 1e-13


def test_a_part_of_the_queries_sees_what_it_saw():
    query, key, value = make_inputs()
    whole = compiled(query, key, value, BOTH, ide.Volterra())
    places = ide.TokenDomain(DOMAIN.points[9:11])
    part = compiled(query[9:11], key, value, Domains(places, DOMAIN), ide.Volterra())
    assert largest(part, whole[9:11]) < 1e-14


@pytest.mark.parametrize("kind", ["blocks", "stream"])
def test_samples_of_a_batch_are_apart(kind):
    batch = [jnp.stack(x) for x in zip(make_inputs(), make_inputs(seed=7), strict=True)]
    mask = jnp.asarray(np.arange(TOKENS)[None] < np.array([[TOKENS], [11]]))

    def padded(inputs, mask):
        return in_parts(kind, *inputs, ide.Fredholm(), domain=DOMAIN.padded(mask))

    both = jax.jit(padded)(batch, mask)
    mapped = jax.jit(jax.vmap(padded))(batch, mask)
    alone = jax.jit(padded)([x[1] for x in batch], mask[1])
    assert largest(both, mapped) < 1e-14
    assert largest(both[1], alone) < 1e-14


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_of_lower_precision_than_the_weights_may_be_padding_only(kind):
    inputs = [x[None].astype(jnp.float32) for x in make_inputs()]
    domain = DOMAIN.padded(jnp.zeros((1, TOKENS), bool))
    assert domain.weights.dtype == jnp.float64
    mean = compiled_in_parts(kind, *inputs, ide.Fredholm(), domain=domain)
    assert largest(mean[0, 0, 0], np.mean(inputs[2][0, :, 0], axis=0)) < 1e-6


def forms_agree(tokens, others, block, seed):
    query, _, _ = make_inputs(tokens, seed=seed)
    _, key, value = make_inputs(others, seed=seed + 1)
    domains = Domains(ide.TokenDomain.uniform(tokens), ide.TokenDomain.uniform(others))

    def difference(query, key, value):
        dense = integrate(query, key, value, domains, ide.Fredholm())
        integrand, restore = prepare(query, key, value, domains.points, None)
        streamed = token_mean(integrand, domains, Stream(ide.Fredholm(), block, False))
        return jnp.max(jnp.abs(restore(streamed.mean) - dense))

    assert float(jax.jit(difference)(query, key, value)) < 1e-14


@pytest.mark.parametrize("tokens, others, block", [(1, 1, 3), (5, 12, 5), (11, 4, 3)])
def test_forms_agree_with_points_of_another_number(tokens, others, block):
    forms_agree(tokens, others, block, seed=0)


@pytest.mark.heavy
@settings(max_examples=10, deadline=None)
@given(
    tokens=st.integers(1, 12),
    others=st.integers(1, 12),
    block=st.integers(1, 5),
    seed=st.integers(0, 9),
)
def test_forms_agree_on_any_shape(tokens, others, block, seed):
    forms_agree(tokens, others, block, seed)


@pytest.mark.parametrize(
    "region, padded", [("all", True), ("past", True), ("window", True), ("window", False)]
)
def test_the_fused_form_has_the_same_mathematics(region, padded):
    query, key, value = (jnp.stack([x, x]) for x in make_inputs())
    domain = DOMAIN
    if padded:
        domain = domain.padded(
            jnp.asarray(np.arange(TOKENS)[None] < np.array([[TOKENS], [19]]))
        )
    fused = eqx.filter_jit(fused_mean)(
        query, key, value, domain, REGIONS[region], implementation="xla"
    )
    ours = compiled(query, key, value, Domains(domain, domain), REGIONS[region])
    # JAX computes the scores in float32, whatever the dtype of the inputs.
    assert largest(fused, ours) < 1e-6


def test_low_precision_accumulates_in_float32():
    inputs = [x.astype(jnp.float32) for x in make_inputs()]
    exact = compiled(*inputs, BOTH, ide.Volterra())
    low = [x.astype(jnp.bfloat16) for x in inputs]
    mean = compiled(*low, BOTH, ide.Volterra())
    assert mean.dtype == jnp.float32
    assert largest(mean, exact) < 0.05
