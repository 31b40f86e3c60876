"""Derivatives of the token integral in all its forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equation.integrals import (
    DOMAIN,
    REGIONS,
    TOKENS,
    derivatives,
    in_parts,
    make_inputs,
    plain,
)
from helpers import largest

import ide_transformer as ide
from ide_transformer.equation import RESIDUALS, Domains, integrate


FAST = {("dense", "all"), ("blocks", "past"), ("stream", "window")}
CASES = [
    pytest.param(kind, region, marks=() if (kind, region) in FAST else pytest.mark.heavy)
    for kind in ("dense", "blocks", "stream")
    for region in REGIONS
]


@pytest.mark.parametrize("kind, region", CASES)
def test_derivatives_of_every_form(kind, region):
    region = REGIONS[region]
    log_weights = 0.1 * np.random.default_rng(3).normal(size=TOKENS)
    primals = (*make_inputs(), jnp.asarray(log_weights))

    def ours(query, key, value, log_weights):
        domain = ide.TokenDomain(DOMAIN.points, jnp.exp(log_weights), DOMAIN.grid)
        return in_parts(kind, query, key, value, region, domain=domain)

    def theirs(*args):
        return plain(*args, region.indicator(DOMAIN, DOMAIN))

    found, expected = (derivatives(f, *primals) for f in (ours, theirs))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert largest(a, b) < 1e-12


def test_queries_that_see_padding_only_stay_finite():
    query, key, value = make_inputs()
    domain = DOMAIN.padded(jnp.asarray(np.arange(TOKENS) > 4))

    def total(query):
        return jnp.sum(in_parts("stream", query, key, value, ide.Volterra(), domain=domain))

    assert np.isfinite(jax.jit(jax.grad(total))(query)).all()


@pytest.mark.parametrize("kind", ["dense", "blocks", "stream"])
def test_a_query_that_sees_nothing_gets_the_mean_of_all_values(kind):
    inputs = make_inputs()
    points = ide.TokenDomain(DOMAIN.points)
    # The first two queries come before all points.
    places = ide.TokenDomain(points.points - 2)
    cotangent = jnp.asarray(np.sin(np.arange(inputs[0].size))).reshape(inputs[0].shape)

    def ours(*inputs):
        return in_parts(kind, *inputs, ide.Volterra(), domain=points, places=places)

    def theirs(*inputs):
        inside = ide.Volterra().indicator(places, points)
        return plain(*inputs, jnp.zeros(TOKENS), inside, -1e300)

    def both(f):
        mean, pullback = jax.vjp(f, *inputs)
        return mean, pullback(cotangent)

    mean, gradient = jax.jit(lambda: both(ours))()
    expected, expected_gradient = jax.jit(lambda: both(theirs))()
    assert largest(mean[0, 0], np.mean(inputs[2][:, 0], axis=0)) < 1e-14
    assert largest(mean, expected) < 1e-13
    for a, b in zip(gradient, expected_gradient, strict=True):
        assert largest(a, b) < 1e-12


def test_a_gradient_that_keeps_the_residuals_does_not_integrate_again():
    query, key, value = make_inputs()
    kept = jax.checkpoint_policies.save_only_these_names(*RESIDUALS)

    def exponentials(policy):
        def total(query):
            domains = Domains(DOMAIN, DOMAIN)
            return jnp.sum(integrate(query, key, value, domains, ide.Volterra()) ** 2)

        gradient = jax.grad(jax.checkpoint(total, policy=policy))
        return str(jax.make_jaxpr(gradient)(query)).count(" exp ")

    assert exponentials(kept) == exponentials(None) - 1
