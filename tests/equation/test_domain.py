import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equation.problems import apply
from helpers import WIDTH, random_state

import ide_transformer as ide
from ide_transformer.equation.operators.positions import differences


@pytest.mark.parametrize("weights", [None, jnp.array([0.5, 1.0, 2.0, 0.3, 0.7])])
def test_integrals_up_to_points_in_any_order_and_at_the_same_place(weights):
    x, v = np.array([0.5, 0.1, 0.9, 0.1, 0.4]), random_state(2, tokens=5)
    w = np.ones(5) if weights is None else np.asarray(weights)
    expected = (x[None] <= x[:, None]) * w @ np.asarray(v)
    domain = ide.TokenDomain(jnp.asarray(x)[:, None], weights)
    # On a domain that a program knows, and one that it is given.
    given = eqx.filter_jit(lambda domain, v: domain.integral_up_to(v))
    for found in (jax.jit(lambda v: domain.integral_up_to(v))(v), given(domain, v)):
        np.testing.assert_allclose(found, expected, atol=1e-14)


def test_what_a_program_is_given_and_cannot_refuse_is_not_a_number():
    points, x = ide.TokenDomain.uniform((3, 1)).points, jnp.array([0.1, 0.3, 0.2, 0.5])
    assert points.tolist() == [[0, 0], [1, 0], [2, 0]]

    @jax.jit
    def computed(w, x):
        domain = ide.TokenDomain(points, w)
        rules = ide.TokenDomain.trapezoid, ide.TokenDomain.simpson
        areas = ide.TokenDomain.from_points(np.array([[0.1], [0.3], [0.2], [0.5]]))
        wrong, right = ([rule(y).weights for rule in rules] for y in (x, jnp.sort(x)))
        return domain.shares, domain.log_weights, wrong, right, areas.weights

    shares, _, wrong, right, areas = computed(jnp.array([1.0, -0.5, 1.0]), x)
    assert np.isnan(shares).all() and np.isnan(wrong).any(1).all() and np.isfinite(right).all()
    np.testing.assert_allclose(areas, [0.05, 0.15, 0.1, 0.1], atol=1e-15)
    log_weights = computed(jnp.array([1.0, jnp.nan, -1.0]), x)[1]
    assert np.isnan(log_weights).tolist() == [False, True, True]


def test_queries_see_and_are_not_seen(key):
    operator = ide.Attention(WIDTH, 4, key=key, std=0.5)
    rule = ide.TokenDomain.trapezoid(jnp.linspace(0, 1, 9))
    domain = ide.TokenDomain(rule.points, rule.weights)
    u = np.random.default_rng(0).normal(size=(11, WIDTH))
    both = np.asarray(apply(operator, u, domain.with_queries(jnp.array([[0.3], [0.8]]))))
    np.testing.assert_allclose(both[:9], apply(operator, u[:9], domain), atol=1e-14)
    alone = apply(operator, np.delete(u, 9, axis=0), domain.with_queries(jnp.array([[0.8]])))
    np.testing.assert_allclose(both[10], alone[9], atol=1e-14)


def test_a_cylinder_goes_around_along_one_axis():
    cylinder = ide.TokenDomain.periodic(4).product(ide.TokenDomain.midpoint(4))
    assert cylinder.period == (1.0, None)

    @jax.jit
    def read(x):
        near = ide.Neighborhood(0.8).indicator(x, x)[0]
        bias = jax.grad(lambda x: ide.LinearBias(1).score_bias(x, x).sum())(x)
        return differences(x, x)[0], near, bias.points

    apart, near, slope = map(np.asarray, read(cylinder))
    # From the first point to the last: the shorter way around, and all of the other axis.
    assert np.allclose(apart[15], [0.25, -0.75])
    assert near[[11, 12, 15]].tolist() == [False, True, True] and np.isfinite(slope).all()


def test_padding_has_no_end():
    padded = ide.TokenDomain.trapezoid(jnp.linspace(0, 1, 6)).padded(jnp.arange(6) < 4)
    assert padded.end_weights[0, 4:].tolist() == padded.weights[4:].tolist() == [0, 0]
