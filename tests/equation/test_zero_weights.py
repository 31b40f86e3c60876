"""Derivatives with respect to quadrature weights that are zero."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equation.integrals import DOMAIN, REGIONS, TOKENS, derivatives, in_parts, make_inputs
from equation.problems import apply
from helpers import HEADS, WIDTH, fast_first, largest, random_state

import ide_transformer as ide


# A quarter of the points; each query sees another one.
WEIGHTS = jnp.asarray(np.where(np.arange(TOKENS) % 4 == 1, 0, 1 + np.arange(TOKENS) / 9))
KINDS = ("dense", "blocks", "stream")


def multiplied(query, key, value, weights, inside):
    """The integral with weights that multiply, in plain operations."""
    key, value = (
        jnp.repeat(x, query.shape[-2] // key.shape[-2], axis=-2) for x in (key, value)
    )
    s = jnp.einsum("xhd,zhd->hxz", query, key) / math.sqrt(query.shape[-1])
    gamma = jnp.exp(s) * weights[None]
    gamma = gamma if inside is None else jnp.where(inside[None], gamma, 0)
    return jnp.einsum("hxz,zhd->xhd", gamma / jnp.sum(gamma, axis=-1, keepdims=True), value)


def close(found, expected, bound=1e-11):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert largest(a, b) < bound * (1 + largest(b, 0))


@pytest.mark.parametrize(
    ("kind", "region"), fast_first(1, [(k, r) for r in ("past", "all", "near") for k in KINDS])
)
def test_derivatives_of_every_form(kind, region):
    region, primals = REGIONS[region], (*make_inputs(), WEIGHTS)
    inside = region.indicator(DOMAIN, DOMAIN)

    def ours(*x):
        domain = ide.TokenDomain(DOMAIN.points, x[3], DOMAIN.grid)
        return in_parts(kind, *x[:3], region, domain=domain)

    def theirs(*x):
        return multiplied(*x[:3], jnp.broadcast_to(x[3], (TOKENS, TOKENS)), inside)

    close(derivatives(ours, *primals), derivatives(theirs, *primals))


@pytest.mark.heavy
@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_with_end_weights(kind):
    own, past = np.eye(TOKENS, dtype=bool), jnp.asarray(np.tri(TOKENS, dtype=bool))
    ends = jnp.where(jnp.arange(TOKENS) % 5 == 2, 0, 0.5 * WEIGHTS)
    primals = (*make_inputs(), WEIGHTS, ends)

    def ours(*x):
        domain = ide.TokenDomain(
            DOMAIN.points, x[3], ends=DOMAIN.points.T, end_weights=x[4][None]
        )
        return in_parts(kind, *x[:3], ide.Volterra(), domain=domain)

    def theirs(*x):
        weights, ends = (jnp.broadcast_to(y, own.shape) for y in x[3:])
        return multiplied(*x[:3], jnp.where(own, ends, weights), past)

    close(derivatives(ours, *primals), derivatives(theirs, *primals))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (ide.Attention, {}),
        (ide.Attention, {"causal": True, "positions": ide.LinearBias(HEADS)}),
        (ide.GaussianAttention, {}),
        (ide.SinkhornAttention, {}),
        (ide.LinearAttention, {"causal": True}),
        (ide.GalerkinAttention, {}),
    ],
)
def test_the_gradient_at_zero_is_the_limit_of_that_at_small_weights(kind, options, key):
    operator, u = kind(WIDTH, HEADS, key=key, std=0.3, **options), random_state()
    points = jnp.linspace(0, 1, len(u))[:, None]

    def total(weights):
        return jnp.sum(apply(operator, u, ide.TokenDomain(points, weights)) ** 2)

    weights = jnp.ones(len(u)).at[jnp.array([1, 5])].set(0.0)
    found, limit = (jax.grad(total)(jnp.maximum(weights, x)) for x in (0.0, 1e-12))
    assert largest(limit[jnp.array([1, 5])], 0) > 1e-3
    close(found, limit, 1e-9)


@pytest.mark.parametrize(("kind", "times"), [(ide.Attention, 300), (ide.SinkhornAttention, 3)])
@pytest.mark.parametrize("first", [3, 0])
def test_gradients_of_padded_weights_stay_finite(kind, times, first, key):
    """Scores of padding are the largest; from the first token on, nothing is seen."""
    operator, u = kind(WIDTH, HEADS, key=key, std=1.0), random_state().at[3:].multiply(times)

    def total(weights, u):
        domain = ide.TokenDomain(jnp.arange(6.0)[:, None], weights)
        return jnp.sum(apply(operator, u, domain.padded(jnp.arange(6) < first)))

    for gradient in jax.grad(total, argnums=(0, 1))(jnp.ones(6), u):
        assert np.isfinite(gradient).all()
