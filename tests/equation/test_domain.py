import functools as ft

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equation.problems import apply, state
from helpers import HEADS, WIDTH, largest, random_state

import ide_transformer as ide
from ide_transformer.equation.operators.positions import differences


def attention(key, **options):
    return ide.Attention(WIDTH, HEADS, key=key, std=0.5, **options)


def test_uniform_grids():
    assert ide.TokenDomain.uniform(3).points.tolist() == [[0], [1], [2]]
    assert ide.TokenDomain.uniform((2, 2)).points.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_equal_weights_are_exactly_the_softmax(key):
    u = state(2)
    operator = attention(key)
    domain = ide.TokenDomain.uniform(6)
    weighted = ide.TokenDomain(domain.points, jnp.full(6, 1.0))
    assert (apply(operator, u, domain) == apply(operator, u, weighted)).all()


def test_quadrature_weights_count_tokens(key):
    """A token of weight 2 contributes as two tokens of weight 1."""
    u = state(tokens=3)
    twice = u[jnp.array([0, 0, 1, 2])]
    operator = attention(key)
    domain = ide.TokenDomain(jnp.arange(3.0)[:, None], jnp.array([2.0, 1.0, 1.0]))
    merged = apply(operator, u, domain)
    repeated = apply(operator, twice, ide.TokenDomain.uniform(4))
    assert largest(merged, repeated[1:]) < 1e-14


def test_quadrature_converges_on_a_clustered_grid(key):
    """Attention on smooth data is an integral: with trapezoidal weights its error on a
    clustered grid falls as N⁻², without them it stays. The exact one is Gauss–Legendre's."""
    operator, direction = attention(key), np.random.default_rng(0).normal(size=(2, WIDTH))

    def at_origin(x, weights):
        # Filled up with padding to one number of tokens, so that one program serves all.
        x, weights = (np.pad(y, (0, 129 - len(y))) for y in (x, weights))
        u = np.sin(3 * x)[:, None] * direction[0] + np.cos(2 * x)[:, None] * direction[1]
        domain = ide.TokenDomain(jnp.asarray(x)[:, None], jnp.asarray(weights))
        return np.asarray(apply(operator, jnp.asarray(u), domain)[0])

    nodes, gauss = np.polynomial.legendre.leggauss(40)
    exact = at_origin(np.append(0, (nodes + 1) / 2), np.append(0, gauss / 2))
    errors, plain = [], []
    for n in (33, 65, 129):
        x = np.linspace(0, 1, n) ** 2
        gaps = np.diff(x)
        weights = 0.5 * (np.append(gaps, 0) + np.append(0, gaps))
        errors.append(np.abs(at_origin(x, weights) - exact).max())
    for n in (65, 129):
        plain.append(np.abs(at_origin(np.linspace(0, 1, n) ** 2, np.ones(n)) - exact).max())
    orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert (np.abs(orders - 2) < 0.15).all()
    assert plain[1] > 0.8 * plain[0] > 10 * errors[1]


@pytest.mark.parametrize("causal", [False, pytest.param(True, marks=pytest.mark.heavy)])
def test_padding_is_never_seen(key, causal):
    """Padded samples of a batch agree with each sample alone, and padding has no effect."""
    operator = attention(key, causal=causal)
    lengths = (3, 6)
    u = state(2)
    mask = jnp.asarray(np.arange(6)[None] < np.array(lengths)[:, None])
    domain = ide.TokenDomain.uniform(6).padded(mask)
    out = apply(operator, u, domain)
    for sample, length in enumerate(lengths):
        alone = apply(operator, u[sample, :length], ide.TokenDomain.uniform(length))
        assert largest(out[sample, :length], alone) < 1e-14
    disturbed = apply(operator, u.at[0, 3:].set(7.0), domain)
    assert (disturbed[0, :3] == out[0, :3]).all()
    gradient = jax.jit(jax.grad(lambda v: jnp.sum(operator(v, domain) ** 2)))(u)
    assert np.isfinite(gradient).all()


def test_a_sample_of_padding_only_stays_finite(key):
    domain = ide.TokenDomain.uniform(6).padded(jnp.zeros((2, 6), bool))
    assert np.isfinite(apply(attention(key, causal=True), state(2), domain)).all()


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
    points = ide.TokenDomain.uniform(3).points
    weights = jax.jit(lambda w: ide.TokenDomain(points, w).shares)(jnp.array([1.0, -0.5, 1.0]))
    assert jnp.isnan(weights).all()
    x = jnp.array([0.1, 0.3, 0.2, 0.5])
    for rule in (ide.TokenDomain.trapezoid, ide.TokenDomain.simpson):
        assert jnp.isnan(jax.jit(lambda x, rule=rule: rule(x).weights)(x)).any()
        assert jnp.isfinite(jax.jit(lambda x, rule=rule: rule(x).weights)(jnp.sort(x))).all()
    areas = jax.jit(lambda: ide.TokenDomain.from_points(np.asarray(x)[:, None]).weights)()
    np.testing.assert_allclose(areas, [0.05, 0.15, 0.1, 0.1], atol=1e-15)


def test_queries_see_and_are_not_seen(key):
    operator = attention(key)
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
