"""Quadrature rules, over all of a domain and up to a point, and in attention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equation.integrals import by_hand, compiled_in_parts
from equation.problems import apply, made
from helpers import HEADS, WIDTH, fast_first, largest, observed_order
from scipy.integrate import simpson
from scipy.spatial import cKDTree

import ide_transformer as ide


GRIDS = {"uniform": lambda s: s, "clustered": lambda s: s + np.sin(2 * np.pi * s) / 8}
ORDERS = {"midpoint": 2, "trapezoid": 2, "simpson": 4}


def on_grid(rule, n, grid="uniform"):
    x = jnp.asarray(GRIDS[grid](np.linspace(0, 1, n + 1)))
    return made(getattr(ide.TokenDomain, rule), n if rule == "midpoint" else x)


def integral(domain):
    """Of `exp(x + y/2)`, y a second coordinate where there is one."""
    x = np.asarray(domain.points) @ np.array([1, 0.5])[: domain.dimension]
    weights = np.asarray(domain.weights) if domain.weights is not None else 1 / len(x)
    return np.sum(weights * np.exp(x))


@pytest.mark.parametrize("rule", ORDERS)
@pytest.mark.parametrize("grid", GRIDS)
def test_rules_converge_at_their_order(rule, grid):
    order = observed_order(
        lambda n: abs(integral(on_grid(rule, n, grid)) - np.e + 1), (16, 32, 64)
    )
    assert order == pytest.approx(ORDERS[rule], abs=0.1)


def test_spectral_rules_products_and_random_points():
    exact, both = np.exp(2) - 1, 2 * (np.e - 1) * (np.exp(0.5) - 1)
    for rule in ("gauss_legendre", "clenshaw_curtis"):
        domain = getattr(ide.TokenDomain, rule)(16, (0.0, 2.0))
        assert abs(integral(domain) - exact) < 1e-13
    lines = on_grid("simpson", 40), on_grid("midpoint", 600)
    assert abs(integral(lines[0].product(lines[0])) - both) < 1e-6
    mixed = lines[1].product(lines[0])
    assert np.sum(mixed.weights) == pytest.approx(600) and mixed.dimension == 2
    random = ide.TokenDomain.monte_carlo(
        20_000, key=jax.random.key(0), bounds=((0.0, 2.0),) * 2
    )
    points = np.asarray(random.points)
    assert abs(points.mean(0) - 1).max() < 0.02 and (points.min(), points.max()) > (0, 1.9)
    assert points.max() < 2 and abs(np.mean(points[:, 0] * points[:, 1]) - 1) < 0.02


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
        domain = on_grid("simpson", n, "clustered")
        return largest(at_origin(ide.TokenDomain(domain.points) if plain else domain), exact)

    assert observed_order(error, (24, 48, 96)) == pytest.approx(4, abs=0.2)
    assert error(96, plain=True) > 0.8 * error(48, plain=True) > 1e-2


def smooth_inputs(x):
    """Queries, keys and values that are smooth functions on the interval."""
    waves = np.stack([np.ones_like(x), np.sin(2 * x), np.cos(3 * x)], -1)
    maps = np.random.default_rng(0).normal(size=(3, 3, 8))
    return tuple(jnp.asarray((waves @ m).reshape(-1, 2, 4)) for m in maps)


def exact_means(x):
    """By Gauss–Legendre on `[0, x_i]` for each query."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    order, weights = np.append((nodes + 1) / 2, 2.0), np.append(weights, 0)

    def one(end):
        inputs = smooth_inputs(np.append(end * (nodes + 1) / 2, end))
        return by_hand(inputs, ide.Volterra(), weights=weights, positions=order)[-1]

    return np.stack([one(end) for end in x])


CASES = [("blocks", "simpson"), ("fused", "trapezoid"), ("stream", "trapezoid")]


@pytest.mark.parametrize(("kind", "rule"), fast_first(2, CASES))
@pytest.mark.parametrize("grid", GRIDS)
def test_causal_integrals_converge_at_the_order_of_the_rule(grid, kind, rule):
    """At the same points of all grids, of which the least is after the first gaps."""
    places = GRIDS[grid](np.linspace(0, 1, 5))

    def error(n):
        domain = on_grid(rule, n, grid)
        inputs = smooth_inputs(np.asarray(domain.points)[:, 0])
        mean = np.asarray(compiled_in_parts(kind, *inputs, ide.Volterra(), domain=domain))
        assert largest(mean[0], inputs[2][0]) < 1e-6
        return np.abs(mean[:: n // 4] - exact_means(places))[1:].max()

    # Fewer points where the fused form has the precision of float32.
    order = observed_order(error, (16, 24, 32) if kind == "fused" else (16, 32, 64))
    assert order == pytest.approx(ORDERS[rule], abs=0.2)


@pytest.mark.parametrize("points", [3, 4, 9, 12])
def test_an_integral_up_to_a_point_is_that_of_the_points_until_there(points):
    """Its weights are those of Simpson's rule on these points alone."""
    x = np.linspace(0, 1, points) + np.linspace(0, 1, points) ** 1.5
    domain, values = made(ide.TokenDomain.simpson, jnp.asarray(x)), np.exp(x)
    of_all, end_weights, ends = map(
        np.asarray, (domain.weights, domain.end_weights, domain.ends)
    )
    assert of_all @ values == pytest.approx(simpson(values, x=x), rel=1e-14)
    for end in range(2, points):
        weights = of_all[: end + 1].copy()
        for lag in range(3):
            weights[end - lag] = end_weights[lag, end - lag]
            assert ends[lag, end - lag] == x[end]
        here = simpson(values[: end + 1], x=x[: end + 1])
        assert weights @ values[: end + 1] == pytest.approx(here, rel=1e-14)


def test_a_periodic_grid_is_exact_for_waves():
    domain = ide.TokenDomain.periodic((6, 5), (1.0, 2.0))
    assert domain.spacing == pytest.approx((1 / 6, 2 / 5)) and domain.period == (1.0, 2.0)
    x, y = np.asarray(domain.points).T
    assert abs(np.mean(np.cos(2 * np.pi * 5 * x) * np.sin(np.pi * 4 * y))) < 1e-15
    assert abs(np.mean(np.cos(2 * np.pi * 6 * x)) - 1) < 1e-15


def test_scattered_points_have_the_parts_of_the_domain_that_are_nearest():
    """Against counting, with points on two sides and in a corner."""
    draw = np.random.default_rng(0)
    points = draw.uniform(size=(40, 2))
    points[:3] = [[0, 0], [1, 0.5], [0.3, 0]]
    domain = ide.TokenDomain.from_points(jnp.asarray(points), ((0.0, 1.0), (0.0, 1.0)))
    samples = 200_000
    nearest = cKDTree(points).query(draw.uniform(size=(samples, 2)))[1]
    counted = np.bincount(nearest, minlength=40) / samples
    assert np.sum(domain.weights) == pytest.approx(1, abs=1e-14)
    assert np.abs(domain.weights - counted).max() < 5 * np.sqrt(0.05 / samples)
    line = ide.TokenDomain.from_points(jnp.array([[3.0], [0.0], [1.0]]), ((-1.0, 3.0),))
    assert line.weights.tolist() == [1.0, 1.5, 1.5]
