import functools as ft

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
    for integral in (
        lambda v: domain.integral_up_to(v),
        jax.jit(lambda v: domain.integral_up_to(v)),
        ft.partial(eqx.filter_jit(ide.TokenDomain.integral_up_to), domain),
    ):
        np.testing.assert_allclose(integral(v), expected, atol=1e-14)


def test_what_a_program_is_given_and_cannot_refuse_is_not_a_number():
    points = ide.TokenDomain.uniform((3, 1)).points
    assert points.tolist() == [[0, 0], [1, 0], [2, 0]]
    weights = jax.jit(lambda w: ide.TokenDomain(points, w).shares)(jnp.array([1.0, -0.5, 1.0]))
    assert jnp.isnan(weights).all()
    log = jax.jit(lambda w: ide.TokenDomain(points, w).log_weights)
    assert jnp.isnan(log(jnp.array([1.0, jnp.nan, -1.0]))).tolist() == [False, True, True]
    x = jnp.array([0.1, 0.3, 0.2, 0.5])
    for rule in (ide.TokenDomain.trapezoid, ide.TokenDomain.simpson):
        assert jnp.isnan(jax.jit(lambda x, rule=rule: rule(x).weights)(x)).any()
        assert jnp.isfinite(jax.jit(lambda x, rule=rule: rule(x).weights)(jnp.sort(x))).all()
    areas = jax.jit(lambda: ide.TokenDomain.from_points(np.asarray(x)[:, None]).weights)()
    np.testing.assert_allclose(areas, [0.05, 0.15, 0.1, 0.1], atol=1e-15)


def test_queries_see_and_are_not_seen(key):
    operator = ide.Attention(WIDTH, 4, key=key, std=0.5)
    rule = ide.TokenDomain.trapezoid(jnp.linspace(0, 1, 9))
    domain = ide.TokenDomain(rule.points, rule.weights)
    u = np.random.default_rng(0).normal(size=(11, WIDTH))
    seen = domain.with_queries(jnp.array([[0.3], [0.8]]))
    both = np.asarray(apply(operator, u, seen))
    np.testing.assert_allclose(both[:9], apply(operator, u[:9], domain), atol=1e-14)
    points, weights = np.asarray(seen.points)[:10], np.append(domain.weights, 0.0)
    split = ide.TokenDomain(jnp.asarray(points), jnp.asarray(weights))
    alone = np.asarray(apply(operator, np.delete(u, 9, axis=0), split))
    np.testing.assert_allclose(both[10], alone[9], atol=1e-14)


def test_a_cylinder_goes_around_along_one_axis():
    cylinder = ide.TokenDomain.periodic(4).product(ide.TokenDomain.midpoint(4))
    assert cylinder.period == (1.0, None)
    apart = differences(cylinder, cylinder)
    # From the first point to the last: the shorter way around, and all of the other axis.
    assert np.allclose(apart[0, 15], [0.25, -0.75])


def test_padding_has_no_end():
    domain = ide.TokenDomain.trapezoid(jnp.linspace(0, 1, 6))
    padded = domain.padded(jnp.arange(6) < 4)
    assert padded.end_weights[0, 4:].tolist() == padded.weights[4:].tolist() == [0, 0]
