"""Quadrature rules of token domains, through the attention operator."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equation.problems import apply, made, state
from helpers import HEADS, WIDTH, largest
from scipy.spatial import cKDTree

import ide_transformer as ide


# Points for which the program has room.
ROOM = 960
GRIDS = {"uniform": lambda s: s, "clustered": lambda s: s + np.sin(2 * np.pi * s) / 8}


@pytest.fixture
def attention(key):
    return ide.Attention(WIDTH, HEADS, key=key, std=0.2)


def smooth_state(points):
    """Smooth functions of the first coordinate, and of the second one where there is one."""
    x, y = points[:, 0], points[:, -1]
    directions = np.random.default_rng(0).normal(size=(3, WIDTH))
    return jnp.stack([jnp.sin(3 * x), jnp.cos(2 * x), x * y**2], axis=1) @ directions


def at_origin(attention, domain):
    """The rate at the origin and its derivatives in weights of the operator. The origin is a
    point without weight, and so are those that fill up: one program serves all domains."""
    points, weights = np.asarray(domain.points), domain.weights
    weights = np.ones(len(points)) if weights is None else np.asarray(weights)
    room = (1, ROOM - len(points))
    return _at_origin(attention, np.pad(points, (room, (0, 0))), np.pad(weights, room))


@eqx.filter_jit
def _at_origin(attention, points, weights):
    def rate(attention):
        return attention(smooth_state(points), ide.TokenDomain(points, weights))[0]

    gradient = eqx.filter_grad(lambda attention: jnp.sum(rate(attention) ** 2))(attention)
    return rate(attention), gradient.query.weight, gradient.value.weight


def errors(attention, domain, exact):
    """Of the rate, and of the gradients, relative to their size."""
    found = at_origin(attention, domain)
    pairs = zip(found, map(np.asarray, exact), strict=True)
    return [largest(a, b) / np.abs(b).max() for a, b in pairs]


@pytest.mark.parametrize(
    ("rule", "order", "grid"),
    [
        ("midpoint", 2, "uniform"),
        ("trapezoid", 2, "uniform"),
        ("trapezoid", 2, "clustered"),
        ("simpson", 4, "uniform"),
        ("simpson", 4, "clustered"),
    ],
)
def test_the_operator_and_its_gradients_converge_at_the_order_of_the_rule(
    attention, rule, order, grid
):
    exact = at_origin(attention, ide.TokenDomain.gauss_legendre(40))
    numbers, found, plain = np.array([48, 96, 192]), [], []
    for n in map(int, numbers):
        x = jnp.asarray(GRIDS[grid](np.linspace(0, 1, n + 1)))
        domain = made(getattr(ide.TokenDomain, rule), n if rule == "midpoint" else x)
        found.append(errors(attention, domain, exact))
        plain.append(errors(attention, ide.TokenDomain(domain.points), exact))
    orders = -np.polyfit(np.log(numbers), np.log(found), 1)[0]
    assert (abs(orders - order) < 0.2).all()
    if grid == "clustered":
        # The softmax alone, for which each point is as large, has another limit.
        assert np.allclose(plain[-1], plain[-2], rtol=0.1) and plain[-1][0] > 1e-2


@pytest.mark.parametrize("rule", ["gauss_legendre", "clenshaw_curtis"])
def test_spectral_rules_are_exact_at_32_points(attention, rule):
    make = getattr(ide.TokenDomain, rule)
    exact = at_origin(attention, ide.TokenDomain.gauss_legendre(60, (0.0, 2.0)))
    assert max(errors(attention, make(32, (0.0, 2.0)), exact)) < 1e-12
    assert errors(attention, make(4, (0.0, 2.0)), exact)[0] > 1e-6


def test_monte_carlo_is_of_order_one_half(attention):
    exact = at_origin(attention, ide.TokenDomain.gauss_legendre(40))[0]
    origin = jnp.zeros((1, 1))

    @eqx.filter_jit
    def error(tokens):
        def square(key):
            # The origin sees the points, and is none of them.
            drawn = ide.TokenDomain.monte_carlo(tokens, key=key)
            points = jnp.concatenate([origin, drawn.points])
            weights = jnp.ones(tokens + 1).at[0].set(0)
            rate = attention(smooth_state(points), ide.TokenDomain(points, weights))[0]
            return jnp.sum((rate - exact) ** 2)

        squares = jax.lax.map(square, jax.random.split(jax.random.key(1), 1000), batch_size=50)
        return jnp.sqrt(jnp.mean(squares))

    numbers = [16, 64, 256]
    order = -np.polyfit(np.log(numbers), np.log([error(n) for n in numbers]), 1)[0]
    assert abs(order - 0.5) < 0.1


def simpson_and_trapezoid(n):
    """The products of Simpson's rule with itself and with the trapezoidal one."""
    points = jnp.linspace(0, 1, n)
    x = ide.TokenDomain.simpson(points)
    return x.product(x), x.product(ide.TokenDomain.trapezoid(points))


def test_products_of_rules_converge_in_the_plane(attention):
    line = ide.TokenDomain.gauss_legendre(20)
    exact = at_origin(attention, made(line.product, line))
    found = []
    for n in (11, 21):
        products = made(simpson_and_trapezoid, n)
        found.append([errors(attention, domain, exact)[0] for domain in products])
    orders = np.log2(np.array(found[0]) / np.array(found[1]))
    assert (abs(orders - [4, 2]) < 0.2).all()


def test_a_periodic_grid_is_exact_for_waves():
    domain = ide.TokenDomain.periodic((6, 5), (1.0, 2.0))
    assert domain.spacing == pytest.approx((1 / 6, 2 / 5)) and domain.period == (1.0, 2.0)
    x, y = np.asarray(domain.points).T
    assert abs(np.mean(np.cos(2 * np.pi * 5 * x) * np.sin(np.pi * 4 * y))) < 1e-15
    assert abs(np.mean(np.cos(2 * np.pi * 6 * x)) - 1) < 1e-15


def test_scattered_points_have_the_parts_of_the_domain_that_are_nearest(attention):
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
    # The mean over them is nearer to the integral than that of the points.
    grid = ide.TokenDomain.gauss_legendre(30)
    exact = at_origin(attention, made(grid.product, grid))
    draws = draw.uniform(size=(3, 200, 2))
    weighted, plain = [], []
    for drawn in map(jnp.asarray, draws):
        cells = ide.TokenDomain.from_points(drawn, ((0.0, 1.0), (0.0, 1.0)))
        weighted.append(errors(attention, cells, exact)[0])
        plain.append(errors(attention, ide.TokenDomain(drawn), exact)[0])
    assert np.mean(weighted) < np.mean(plain) / 3


def test_the_midpoint_rule_is_the_softmax(attention):
    u = state(tokens=6)
    ordinary = apply(attention, u, ide.TokenDomain.uniform(6))
    assert largest(apply(attention, u, ide.TokenDomain.midpoint(6)), ordinary) < 1e-14


def test_a_point_is_two_of_half_its_weight(attention):
    domain, u = ide.TokenDomain.gauss_legendre(5), np.asarray(state(tokens=5))
    twice = np.array([0, 1, 1, 2, 3, 4])
    halves = np.asarray(domain.weights)[twice] * [1, 0.5, 0.5, 1, 1, 1]
    points = jnp.asarray(np.asarray(domain.points)[twice])
    there = apply(attention, u[twice], ide.TokenDomain(points, jnp.asarray(halves)))
    assert largest(there, np.asarray(apply(attention, u, domain))[twice]) < 1e-12
