"""Domains of tokens: their rules of quadrature, over all of a domain and up to a point, and in
attention; padding and queries; functions from one domain on another."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import simpson

import ide_transformer as ide
from ide_transformer.equation.operators.positions import differences
from tests.equation.problems import apply, computed
from tests.helpers import HEADS, WIDTH, largest, observed_order, random_state


def test_integrals_up_to_points_in_any_order_and_at_the_same_place():
    x, weights = np.array([[0.5, 0.1, 0.9, 0.1, 0.4], [0.5, 1.0, 2.0, 0.3, 0.7]])
    v = random_state(2, tokens=5)
    expected = (x[None] <= x[:, None]) * weights @ np.asarray(v)
    domain = ide.TokenDomain(jnp.asarray(x)[:, None], jnp.asarray(weights))
    # On a domain that a program knows, and one that it is given.
    of_any_domain = eqx.filter_jit(lambda domain, v: domain.integral_up_to(v))
    for integrals in (jax.jit(lambda v: domain.integral_up_to(v))(v), of_any_domain(domain, v)):
        np.testing.assert_allclose(integrals, expected, atol=1e-14)


def test_what_a_program_is_given_and_cannot_refuse_is_not_a_number():
    points, x = ide.TokenDomain.uniform((3, 1)).points, jnp.array([0.1, 0.3, 0.2, 0.5])
    assert points.tolist() == [[0, 0], [1, 0], [2, 0]]

    @jax.jit
    def computed(w, x):
        domain = ide.TokenDomain(points, w)
        rules = ide.TokenDomain.trapezoid, ide.TokenDomain.simpson
        areas = ide.TokenDomain.from_points(np.array([[0.1], [0.3], [0.2], [0.5]]))
        wrong, right = ([rule(y).weights for rule in rules] for y in (x, jnp.sort(x)))
        return domain.shares, domain.weights, wrong, right, areas.weights

    shares, _, wrong, right, areas = computed(jnp.array([1.0, -0.5, 1.0]), x)
    assert np.isnan(shares).all() and np.isnan(wrong).any(1).all() and np.isfinite(right).all()
    np.testing.assert_allclose(areas, [0.05, 0.15, 0.1, 0.1], atol=1e-15)
    weights = computed(jnp.array([1.0, jnp.nan, -1.0]), x)[1]
    assert np.isnan(weights).tolist() == [False, True, True]


def test_queries_see_and_are_not_seen(key):
    operator = ide.Attention(WIDTH, 4, key=key, std=0.5)
    rule = ide.TokenDomain.trapezoid(jnp.linspace(0, 1, 9))
    domain = ide.TokenDomain(rule.points, rule.weights)
    u = np.random.default_rng(0).normal(size=(11, WIDTH))
    with_queries = np.asarray(
        apply(operator, u, domain.with_queries(jnp.array([[0.3], [0.8]])))
    )
    np.testing.assert_allclose(with_queries[:9], apply(operator, u[:9], domain), atol=1e-14)
    alone = apply(operator, np.delete(u, 9, axis=0), domain.with_queries(jnp.array([[0.8]])))
    np.testing.assert_allclose(with_queries[10], alone[9], atol=1e-14)


def test_a_cylinder_goes_around_along_one_axis():
    cylinder = ide.TokenDomain.periodic(4).product(ide.TokenDomain.midpoint(4))
    assert cylinder.period == (1.0, None)

    @jax.jit
    def read(x):
        bias = jax.grad(lambda x: ide.equation.LinearBias(1).score_bias(x, x).sum())(x)
        return differences(x, x), bias.points

    apart, slope = map(np.asarray, read(cylinder))
    # From the first point to the last: the shorter way around, and all of the other axis.
    assert np.allclose(apart[0, 15], [0.25, -0.75]) and abs(apart[..., 0]).max() == 0.5
    assert np.isfinite(slope).all()


POINTS = np.cumsum([0.0, 0.3, 0.4, 0.4, 0.5, 0.7, 0.9])
LINE = ide.TokenDomain.simpson(jnp.asarray(POINTS))
DRAW = np.random.default_rng(0)


def moved(transfer, u):
    return np.asarray(eqx.filter_jit(transfer)(u))


def at(function, domain):
    return jnp.asarray(function(*np.asarray(domain.points).T))[:, None]


@pytest.mark.parametrize("degree", [1, 3])
def test_polynomials_of_the_degree_are_exact(degree):
    shuffled = ide.TokenDomain(LINE.points[DRAW.permutation(7)])
    target = ide.TokenDomain(jnp.asarray(DRAW.uniform(0, 3.2, 20))[:, None])
    u, expected = (np.asarray(x.points) ** np.arange(degree + 2) for x in (shuffled, target))
    transfer = ide.equation.interpolation(shuffled, target, degree=degree)
    apart = np.abs(moved(transfer, u) - expected).max(axis=0)
    assert apart[:-1].max() < 1e-12 and apart[-1] > 1e-3


def test_it_converges_around_a_periodic_plane():
    target, errors = ide.TokenDomain(jnp.asarray(DRAW.uniform(0, 1, (50, 2)) * [1, 2])), []
    for n in (16, 32):
        source = ide.TokenDomain.periodic((n, n), (1.0, 2.0))
        # Grids that were computed have coordinates that differ by rounding.
        noise = jnp.asarray(DRAW.uniform(-1e-15, 1e-15, source.points.shape))
        source = dataclasses.replace(source, points=source.points + noise)
        u, expected = (
            at(lambda x, y: np.sin(2 * np.pi * x) * np.cos(np.pi * y), domain)
            for domain in (source, target)
        )
        transfer = ide.equation.interpolation(source, target, degree=3)
        errors.append(largest(moved(transfer, u), expected))
    assert abs(np.log2(errors[0] / errors[1]) - 4) < 0.3


def test_scattered_points_are_linear_in_simplices():
    corners = np.indices((2, 2)).reshape(2, -1).T
    points = np.concatenate([corners, DRAW.uniform(size=(30, 2))])
    source = ide.TokenDomain(jnp.asarray(points))
    # The last is outside, and nearest to a corner.
    places = np.append(DRAW.uniform(size=(20, 2)), [[1.5, 1.5]], axis=0)
    target = ide.TokenDomain(jnp.asarray(places))
    u, expected = (at(lambda x, y: 1 + 2 * x - 3 * y, domain) for domain in (source, target))
    values = moved(ide.equation.interpolation(source, target), u)
    assert largest(values[:-1], expected[:-1]) < 1e-13
    assert values[-1] == u[len(corners) - 1]
    # Around a torus nothing is outside.
    around = ide.TokenDomain(source.points[len(corners) :], period=(1.0, 1.0))
    shifted = ide.TokenDomain(target.points[:-1] + 1)
    transfers = [ide.equation.interpolation(around, x) for x in (target, shifted)]
    here_values, shifted_values = (moved(x, u[len(corners) :])[:20] for x in transfers)
    assert largest(here_values, shifted_values) < 1e-12


ORDERS = {"midpoint": 2, "trapezoid": 2, "simpson": 4}


def on_grid(rule, n):
    """A domain of n cells, clustered where the rule takes points."""
    s = np.linspace(0, 1, n + 1)
    points = jnp.asarray(s + np.sin(2 * np.pi * s) / 8)
    return computed(getattr(ide.TokenDomain, rule), n if rule == "midpoint" else points)


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
    line = on_grid(rule, 60)
    product = integral(line.product(ide.TokenDomain.gauss_legendre(8)))
    assert product == pytest.approx(2 * (np.exp(0.5) - 1) * integral(line), rel=1e-13)


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

    def error(n, plain=False):
        domain = on_grid("simpson", n)
        return largest(at_origin(ide.TokenDomain(domain.points) if plain else domain), exact)

    assert observed_order(error, (24, 48, 96)) == pytest.approx(4, abs=0.2)
    assert error(96, plain=True) > 0.8 * error(48, plain=True) > 1e-2


def test_an_integral_up_to_a_point_is_that_of_the_points_until_there():
    points = 6
    x = np.linspace(0, 1, points) + np.linspace(0, 1, points) ** 1.5
    domain, values = computed(ide.TokenDomain.simpson, jnp.asarray(x)), np.exp(x)
    names = "weights", "end_weights", "ends"
    of_all, end_weights, ends = (np.asarray(getattr(domain, name)) for name in names)
    for end in range(2, points):
        weights = of_all[: end + 1].copy()
        for lag in range(3):
            weights[end - lag] = end_weights[lag, end - lag]
            assert ends[lag, end - lag] == x[end]
        expected = simpson(values[: end + 1], x=x[: end + 1])
        assert weights @ values[: end + 1] == pytest.approx(expected, rel=1e-14)


def test_scattered_points_have_the_parts_of_the_domain_that_are_nearest():
    domain = ide.TokenDomain.from_points(np.array([[0, 0.2], [0, 0.7]]), ((0.0, 1.0),) * 2)
    np.testing.assert_allclose(domain.weights, [0.45, 0.55], rtol=1e-12)
    circle = ide.TokenDomain.from_points(np.arange(4) / 4 + 0.1, period=(1.0,))
    np.testing.assert_allclose(circle.weights, 0.25)
    assert circle.period == (1.0,)
    for bounds, message in (((0.0, 1.0), "twice"), ((0.0, 2.0), "period")):
        with pytest.raises(ide.InputError, match=message):
            ide.TokenDomain.from_points(np.array([0.0, 0.4, 1.0]), (bounds,), (1.0,))
    with pytest.raises(ide.InputError, match="at least one point"):
        ide.TokenDomain.from_points(np.zeros(0))
    line = ide.TokenDomain.from_points(jnp.array([[3.0], [0.0], [1.0]]), ((-1.0, 3.0),))
    assert line.weights.tolist() == [1.0, 1.5, 1.5]
    points = np.array([[0, 0.2], [0.5, 0.2], [0, 0.7], [0.5, 0.7]])
    cylinder = ide.TokenDomain.from_points(points, ((0.0, 1.0),) * 2, (1.0, None))
    np.testing.assert_allclose(cylinder.weights, [0.225, 0.225, 0.275, 0.275], rtol=1e-12)
    # In the corners of a box and in its middle.
    points = np.concatenate([np.indices((2, 2, 2)).reshape(3, -1).T, np.full((1, 3), 0.5)])
    weights = ide.TokenDomain.from_points(points, ((0.0, 1.0),) * 3).weights
    np.testing.assert_allclose(weights, [1 / 16] * 8 + [1 / 2], rtol=1e-12)
