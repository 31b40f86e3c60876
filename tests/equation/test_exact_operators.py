"""Operators whose flow is known."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equation.problems import state
from helpers import WIDTH, largest

import ide_transformer as ide


DOMAIN = ide.TokenDomain.uniform(12)


def exact_operators():
    draw = np.random.default_rng(5)
    key = jnp.asarray(draw.normal(size=(4, WIDTH // 4)))
    return {
        "damping": ide.Damping(draw.uniform(size=WIDTH)),
        "stable damping": ide.StableDamping(draw.uniform(0.1, 1.0, size=WIDTH)),
        "diffusion": ide.Diffusion(0.3),
        "delta rule": ide.DeltaRule(key, jnp.asarray(np.arange(4.0)), 0.7),
        "relaxation": ide.Relaxation(0.6, state(2, tokens=12, seed=6)),
    }


@eqx.filter_jit
def flow(operator, u, h, domain=DOMAIN):
    return operator.flow(u, domain, h)


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        *((name, DOMAIN) for name in exact_operators()),
        ("diffusion", ide.TokenDomain.uniform((3, 4))),
    ],
)
def test_a_flow_solves_the_equation_of_its_operator(name, domain):
    """`d/dh flow(u, h) = A(flow(u, h))`, starting from u."""
    operator, u0 = exact_operators()[name], state(2, tokens=12)

    @jax.jit
    def compare(u0, h):
        u, slope = jax.jvp(lambda h: operator.flow(u0, domain, h), (h,), (jnp.ones(()),))
        return u, slope, operator(u, domain)

    start, *_ = compare(u0, jnp.asarray(0.0))
    assert largest(start, u0) < 1e-14
    for h in (0.5, 1.0):
        u, slope, rate = compare(u0, jnp.asarray(h))
        assert largest(slope, rate) < 1e-12
        assert largest(u, u0) > 0.1
    # It is a group: two halves make a whole.
    half, *_ = compare(u0, jnp.asarray(0.5))
    assert largest(compare(half, jnp.asarray(0.5))[0], u) < 1e-12


def test_diffusion_keeps_the_mean_and_damps_waves():
    domain = ide.TokenDomain.uniform(16)
    wave = np.cos(3 * np.pi * (np.arange(16) + 0.5) / 16)[:, None]
    later = flow(ide.Diffusion(0.5), jnp.asarray(2.0 + wave), 1.0, domain)
    assert largest(later, 2.0 + np.exp(-0.5 * (3 * np.pi / 16) ** 2) * wave) < 1e-13


def test_the_delta_rule_is_the_update_of_error_free_linear_attention():
    """S ← (I - α k kᵀ) S + α k v, for a state S of one column."""
    k, v, beta = np.random.default_rng(0).normal(size=WIDTH), 0.4, 0.9
    u, domain = state(tokens=3), ide.TokenDomain.uniform(3)
    rule = ide.DeltaRule(jnp.asarray(k)[None], jnp.array([v]), beta)
    alpha = (1 - np.exp(-beta * k @ k)) / (k @ k)
    matrix = np.eye(WIDTH) - alpha * np.outer(k, k)
    expected = np.asarray(u) @ matrix.T + alpha * v * k
    assert largest(flow(rule, u, 1.0, domain), expected) < 1e-13
    still = ide.DeltaRule(jnp.zeros((1, WIDTH)), jnp.ones(1))
    assert largest(flow(still, u, 1.0, domain), u) == 0
