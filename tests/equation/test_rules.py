"""Quadrature rules, over all of a domain and up to a point, and in attention."""

import jax.numpy as jnp
import numpy as np
import pytest
from equation.problems import apply, made
from helpers import HEADS, WIDTH, largest, observed_order
from scipy.integrate import simpson
from scipy.spatial import cKDTree

import ide_transformer as ide


ORDERS = {"midpoint": 2, "trapezoid": 2, "simpson": 4}


def on_grid(rule, n):
    """A domain of n cells, clustered where the rule takes points."""
    s = np.linspace(0, 1, n + 1)
    points = jnp.asarray(s + np.sin(2 * np.pi * s) / 8)
    return made(getattr(ide.TokenDomain, rule), n if rule == "midpoint" else points)


def integral(domain):
    """The integral of `exp(x + y/2)`, y a second coordinate where there is one."""
    x = np.asarray(domain.points) @ np.array([1, 0.5])[: domain.dimension]
    weights = np.asarray(domain.weights) if domain.weights is not None else 1 / len(x)
    return np.sum(weights * np.exp(x))


@pytest.mark.parametrize("rule", ORDERS)
def test_rules_converge_at_their_order(rule):
    def error(n):
        return abs(integral(on_grid(rule, n)) - np.e + 1)

    assert observed_order(error, (16, 32, 64)) == pytest.approx(ORDERS[rule], abs=0.1)


def test_spectral_rules_and_products():
    for rule in ("gauss_legendre", "clenshaw_curtis"):
        domain = getattr(ide.TokenDomain, rule)(16, (0.0, 2.0))
        assert abs(integral(domain) - np.exp(2) + 1) < 1e-13
    line, both = on_grid("simpson", 60), 2 * (np.e - 1) * (np.exp(0.5) - 1)
    assert abs(integral(line.product(line)) - both) < 1e-6


def test_attention_converges_at_the_order_of_the_rule(key):
    """The softmax alone, for which each point is as large, has another limit."""
    operator = ide.Attention(WIDTH, HEADS, key=key, std=0.2)
    directions = np.random.default_rng(0).normal(size=(2, WIDTH))

    def at_origin(domain):
        # The origin is a point without weight, and so are those that fill up: one program.
        room = (1, 100 - domain.num_tokens)
        x = np.pad(np.asarray(domain.points)[:, 0], room)
        u = jnp.asarray(np.stack([np.sin(3 * x), np.cos(2 * x)], 1) @ directions)
        weights = np.ones(len(domain.points)) if domain.weights is None else domain.weights
        points = ide.TokenDomain(jnp.asarray(x)[:, None], jnp.asarray(np.pad(weights, room)))
        return np.asarray(apply(operator, u, points)[0])

    exact = at_origin(ide.TokenDomain.gauss_legendre(40))
    assert largest(at_origin(ide.TokenDomain.clenshaw_curtis(32)), exact) < 1e-12

    def error(n, plain=False):
        domain = on_grid("simpson", n)
        return largest(at_origin(ide.TokenDomain(domain.points) if plain else domain), exact)

    assert observed_order(error, (24, 48, 96)) == pytest.approx(4, abs=0.2)
    assert error(96, plain=True) > 0.8 * error(48, plain=True) > 1e-2


@pytest.mark.parametrize("points", [4, 9])
def test_an_integral_up_to_a_point_is_that_of_the_points_until_there(points):
    """Its weights are those of Simpson's rule on these points alone."""
    x = np.linspace(0, 1, points) + np.linspace(0, 1, points) ** 1.5
    domain, values = made(ide.TokenDomain.simpson, jnp.asarray(x)), np.exp(x)
    names = "weights", "end_weights", "ends"
    of_all, end_weights, ends = (np.asarray(getattr(domain, name)) for name in names)
    for end in range(2, points):
        weights = of_all[: end + 1].copy()
        for lag in range(3):
            weights[end - lag] = end_weights[lag, end - lag]
            assert ends[lag, end - lag] == x[end]
        here = simpson(values[: end + 1], x=x[: end + 1])
        assert weights @ values[: end + 1] == pytest.approx(here, rel=1e-14)


def test_scattered_points_have_the_parts_of_the_domain_that_are_nearest():
    """Against counting, with points on two sides and in a corner."""
    draw, samples = np.random.default_rng(0), 200_000
    points = np.concatenate([[[0, 0], [1, 0.5], [0.3, 0]], draw.uniform(size=(37, 2))])
    domain = ide.TokenDomain.from_points(jnp.asarray(points), ((0.0, 1.0), (0.0, 1.0)))
    nearest = cKDTree(points).query(draw.uniform(size=(samples, 2)))[1]
    counted = np.bincount(nearest, minlength=40) / samples
    assert np.sum(domain.weights) == pytest.approx(1, abs=1e-14)
    assert np.abs(domain.weights - counted).max() < 5 * np.sqrt(0.05 / samples)
    line = ide.TokenDomain.from_points(jnp.array([[3.0], [0.0], [1.0]]), ((-1.0, 3.0),))
    assert line.weights.tolist() == [1.0, 1.5, 1.5]
