"""Weights as functions of a feature: bases, quadrature over Ω_y, and operators at any width."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equation.problems import apply, made
from helpers import largest, observed_order

import ide_transformer as ide


@eqx.filter_jit
def values(basis, y, number):
    return basis(y, number)


BASES = [ide.Cosine(), ide.Waves(), ide.Legendre(), ide.Warped(3), ide.Nodal()]


@pytest.mark.parametrize("basis", BASES, ids=lambda x: type(x).__name__)
def test_functions_are_orthonormal(basis):
    basis = jax.tree.map(lambda x: x + np.array([1.0, -0.7, 0.4]), basis)
    # Points inside of the parts on which nodal functions are constant.
    nodes, weights = np.polynomial.legendre.leggauss(40)
    y = ((nodes + 1) / 2 + np.arange(7)[:, None]).ravel() / 7
    w = np.tile(weights / 2, 7) / 7
    phi = np.asarray(values(basis, y, 7))
    np.testing.assert_allclose(phi.T * w @ phi, np.eye(7), atol=1e-12)


def test_cosines_waves_and_polynomials_are_those_of_the_books():
    y = np.random.default_rng(0).uniform(size=9)
    two = np.sqrt(2)
    cosines = np.stack([np.ones(9), *(two * np.cos(a * np.pi * y) for a in (1, 2))], 1)
    waves = np.stack([np.ones(9), two * np.sin(2 * np.pi * y), two * np.cos(2 * np.pi * y)], 1)
    sizes = np.sqrt(2 * np.arange(5) + 1)
    legendre = np.polynomial.legendre.legvander(2 * y - 1, 4) * sizes
    known = ((ide.Cosine(), cosines), (ide.Warped(), cosines), (ide.Waves(), waves))
    for basis, expected in known:
        assert largest(values(basis, y, 3), expected) < 1e-13
    assert largest(values(ide.Legendre(), y, 5), legendre) < 1e-13
    warped = eqx.tree_at(lambda x: x.theta, ide.Warped(1), np.ones(1))
    s = 0.9 * np.tanh(1.0)
    g, slope = y + s * np.sin(np.pi * y) / np.pi, 1 + s * np.cos(np.pi * y)
    expected = two * np.cos(np.pi * g) * np.sqrt(slope)
    np.testing.assert_allclose(values(warped, y, 2)[:, 1], expected, atol=1e-14)


@pytest.mark.parametrize(
    ("rule", "function", "integral"),
    [
        ("midpoint", lambda y: 2 * y, 1.0),
        ("periodic", lambda y: np.cos(2 * np.pi * y) ** 2, 0.5),
        ("gauss_legendre", lambda y: 16 * y**15, 1.0),
        ("clenshaw_curtis", lambda y: 8 * y**7, 1.0),
    ],
)
def test_rules_integrate_over_the_unit_interval(rule, function, integral):
    domain = ide.FeatureDomain(8, rule)
    assert domain.points.min() >= 0 and domain.points.max() <= 1
    assert domain.weights.sum() == pytest.approx(1, abs=1e-14)
    assert domain.weights @ function(domain.points) == pytest.approx(integral, abs=1e-13)
    assert domain.with_points(12) == ide.FeatureDomain(12, rule)


@pytest.mark.parametrize("number", [49, 98, 103])
def test_each_of_equally_many_points_is_in_a_part_of_its_own(number):
    """Also where j / number is rounded to below the beginning of part j."""
    for dtype in (np.float32, np.float64):
        phi = values(ide.Nodal(), (np.arange(number) / number).astype(dtype), number)
        np.testing.assert_array_equal(np.asarray(phi).argmax(axis=1), np.arange(number))


@pytest.mark.parametrize(
    ("basis", "features", "rule", "message"),
    [
        (ide.Nodal(), 6, "midpoint", "4 equal parts unequal weights"),
        (ide.Nodal(), 8, "gauss_legendre", "take a multiple of 4 points"),
        (ide.Waves(), 4, "periodic", "give more points than functions"),
        (ide.Waves(), 4, "midpoint", "give more points than functions"),
    ],
)
def test_points_that_make_other_functions_are_refused(basis, features, rule, message):
    domain = ide.FeatureDomain(features, rule)
    phi = np.asarray(values(basis, domain.points, 4))
    assert np.abs(phi.T * domain.weights @ phi - np.eye(4)).max() > 0.1
    with pytest.raises(ide.InputError, match=message):
        ide.FunctionSpace(basis, 4, domain)
    # Of a function inside, which has modes of its own.
    if isinstance(basis, ide.Waves):
        with pytest.raises(ide.InputError, match=message):
            ide.FunctionSpace(basis, 3, ide.FeatureDomain(3, rule)).inner(4)


MODES, HEADS, TOKENS = 6, 2, 5
TEXT = ide.TokenDomain.uniform(TOKENS)


def space(points=MODES, basis=ide.Cosine(), rule="midpoint"):
    return ide.FunctionSpace(basis, MODES, ide.FeatureDomain(points, rule))


def smooth_operator(make):
    """Coefficients that fall with the number of the function, so that kernels are smooth."""
    operator = eqx.filter_eval_shape(make, key=jax.random.key(5), std=1.0)

    def fall(x):
        factors = [1.5 ** -np.arange(n) for n in x.shape]
        factor = factors[0] if x.ndim == 1 else np.outer(*factors)
        return jnp.asarray(factor * np.random.default_rng(x.size).normal(size=x.shape))

    return jax.tree.map(fall, operator)


def attention(**options):
    return ide.Attention(MODES, HEADS, normalization=ide.LayerNorm(), **options)


def feed_forward(**options):
    return ide.FeedForward(MODES, 2 * MODES, normalization=ide.LayerNorm(), **options)


def gated(**options):
    return ide.GatedFeedForward(MODES, MODES, bias=True, **options)


def state(points, rule="midpoint"):
    """A smooth function of the feature for each of a few tokens."""
    y = ide.FeatureDomain(points, rule).points
    x = np.arange(TOKENS)[:, None]
    return jnp.asarray(np.sin(2 * y + x) + 0.5 * np.cos(3 * y * (x + 1)))


def kernel(coefficients, y, xi):
    """`Σ_ab C_ab φ_b(y) φ_a(ξ)`, of cosines."""

    def phi(z, number):
        a = np.arange(number)
        return np.where(a == 0, 1, np.sqrt(2)) * np.cos(np.pi * np.outer(z, a))

    into, out = coefficients.shape
    return phi(y, out) @ np.asarray(coefficients).T @ phi(xi, into).T


def bias_at(y, coefficients):
    """A function with m coefficients has values of the size of these over √m."""
    c = np.asarray(coefficients)
    return kernel(c[None], y, np.zeros(1))[:, 0] / np.sqrt(len(c))


@pytest.mark.parametrize("make", [feed_forward, gated])
def test_feed_forwards_are_two_integrals_with_kernels(make):
    """Against NumPy, the weights of the rule in each integral."""
    operator = smooth_operator(make)
    domain, hidden_modes = ide.FeatureDomain(9, "gauss_legendre"), len(operator.inner.bias)
    inside = domain.with_points(9 * hidden_modes // MODES)
    y, z, scale = domain.points, inside.points, np.sqrt(MODES / hidden_modes)
    u = v = np.asarray(state(9, "gauss_legendre"))
    if make is feed_forward:
        v = u - (u @ domain.weights)[:, None]
        v = v / np.sqrt(v**2 @ domain.weights + 1e-5)[:, None]

    def hidden(linear):
        integral = v * domain.weights @ kernel(linear.weight, z, y).T
        return integral * scale + bias_at(z, linear.bias)

    if make is feed_forward:
        h = np.asarray(jax.nn.gelu(hidden(operator.inner), approximate=False))
    else:
        h = np.asarray(jax.nn.silu(hidden(operator.gate))) * hidden(operator.inner)
    expected = h * inside.weights @ kernel(operator.outer.weight, y, z).T / scale
    expected = expected + bias_at(y, operator.outer.bias)
    functional = made(operator.at_points, space(9, rule="gauss_legendre"))
    np.testing.assert_allclose(apply(functional, u, TEXT), expected, atol=1e-12)


def test_scores_are_integrals_over_the_features_of_a_head():
    """Against NumPy: `√m ∫ Q K dy`, and the values of heads integrated over Ω_h × Ω_y."""
    operator, u = smooth_operator(attention), np.asarray(state(12))
    v = u - u.mean(1, keepdims=True)
    v = v / np.sqrt((v**2).mean(1, keepdims=True) + 1e-5)
    y, z, modes = (np.arange(12) + 0.5) / 12, (np.arange(6) + 0.5) / 6, MODES // HEADS
    expected = bias_at(y, operator.output.bias)
    for h in range(HEADS):
        of_head = slice(h * modes, (h + 1) * modes)
        query, key, value = (
            v @ kernel(x.weight[:, of_head], z, y).T / 12 * np.sqrt(MODES / modes)
            + bias_at(z, x.bias[of_head])
            for x in (operator.query, operator.key, operator.value)
        )
        weights = np.exp(np.sqrt(modes) * query @ key.T / 6)
        mean = weights / weights.sum(1, keepdims=True) @ value
        output = kernel(operator.output.weight[of_head], y, z).T
        expected = expected + mean @ output / 6 * np.sqrt(modes / MODES)
    functional = made(operator.at_points, space(12))
    np.testing.assert_allclose(apply(functional, u, TEXT), expected, atol=1e-12)


@eqx.filter_jit
def coefficients_of_rate(make, points, rule, basis):
    """The first coefficients of what an operator gives, which do not depend on the points."""
    functions = space(points, basis, rule)
    rate = smooth_operator(make).at_points(functions)(state(points, rule), TEXT)
    return rate @ functions.features.duals


def test_orders_in_width():
    """The midpoint rule is of second order for polynomials, Gauss and Legendre's spectral."""
    fine = coefficients_of_rate(attention, 48, "gauss_legendre", ide.Legendre())

    def error(points, rule="midpoint"):
        found = coefficients_of_rate(attention, points, rule, ide.Legendre())
        return abs(found - fine).max()

    assert observed_order(error, (96, 192)) == pytest.approx(2, abs=0.2)
    assert error(24, "gauss_legendre") < 1e-9


def test_a_gain_that_is_the_same_for_all_features_stays_it():
    gain = ide.LayerNorm(jnp.full(MODES, 3.0)).at_points(space(12)).gain
    np.testing.assert_allclose(gain, 3.0, atol=1e-14)
    integral = smooth_operator(lambda **options: ide.FeatureIntegral(MODES, **options))
    scaled = ide.Scaled(integral, jnp.full(MODES, 0.1)).at_points(space(12))
    np.testing.assert_allclose(scaled.rate, 0.1, atol=1e-14)
