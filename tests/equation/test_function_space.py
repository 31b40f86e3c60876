"""Weights as functions of a feature: bases, quadrature over Ω_y, and operators at any width."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equation.problems import apply, made, project
from helpers import WIDTH, make_block, observed_order, random_state

import ide_transformer as ide


MODES, HEADS, TOKENS = 6, 2, 5


def space(points=MODES, basis=ide.Cosine(), rule="midpoint", modes=MODES):
    return ide.FunctionSpace(basis, modes, ide.FeatureDomain(points, rule))


def smooth_operator(make, **options):
    """Coefficients that fall with the number of the function, so that kernels are smooth."""
    operator = eqx.filter_eval_shape(make, key=jax.random.key(5), std=1.0, **options)

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


def integral(**options):
    return ide.FeatureIntegral(MODES, **options)


def state(points, rule="midpoint"):
    """A smooth function of the feature for each of a few tokens."""
    y = ide.FeatureDomain(points, rule).points
    x = np.arange(TOKENS)[:, None]
    return jnp.asarray(np.sin(2 * y + x) + 0.5 * np.cos(3 * y * (x + 1)))


def test_nodal_functions_at_as_many_points_are_an_ordinary_block():
    u, domain = random_state(), ide.TokenDomain.uniform(6)
    values = ide.FunctionSpace(ide.Nodal(), WIDTH, ide.FeatureDomain(WIDTH))
    for operator in make_block(jax.random.key(3)):
        functional = made(operator.at_points, values)
        expected = apply(operator, u, domain)
        np.testing.assert_allclose(apply(functional, u, domain), expected, atol=1e-14)


@pytest.mark.parametrize("operator", [0, 1], ids=["attention", "feed-forward"])
def test_nodal_functions_at_more_points_have_each_feature_several_times(operator):
    u, domain = random_state(), ide.TokenDomain.uniform(6)
    operator = make_block(jax.random.key(3))[operator]
    wide = made(
        operator.at_points, ide.FunctionSpace(ide.Nodal(), WIDTH, ide.FeatureDomain(3 * WIDTH))
    )
    expected = np.repeat(apply(operator, u, domain), 3, axis=-1)
    found = apply(wide, np.repeat(u, 3, axis=-1), domain)
    np.testing.assert_allclose(found, expected, atol=1e-13)


def kernel(coefficients, y, xi):
    """`Σ_ab C_ab φ_b(y) φ_a(ξ)`, of cosines."""

    def phi(z, number):
        a = np.arange(number)
        return np.where(a == 0, 1, np.sqrt(2)) * np.cos(np.pi * np.outer(z, a))

    into, out = coefficients.shape
    return phi(y, out) @ np.asarray(coefficients).T @ phi(xi, into).T


def test_feed_forward_is_two_integrals_with_kernels():
    """Against NumPy, the weights of the rule in each integral."""
    operator = smooth_operator(feed_forward)
    domain = ide.FeatureDomain(9, "gauss_legendre")
    inside = ide.FeatureDomain(18, "gauss_legendre")
    u = np.asarray(state(9, "gauss_legendre"))
    mean = u @ domain.weights
    v = u - mean[:, None]
    v = v / np.sqrt(v**2 @ domain.weights + 1e-5)[:, None]
    scale = np.sqrt(MODES / (2 * MODES))
    # A function with m coefficients has values of the size of these over √m.
    inner, outer = operator.inner, operator.outer
    z = inside.points
    bias = kernel(np.asarray(inner.bias)[None], z, np.zeros(1))[:, 0] / np.sqrt(2 * MODES)
    hidden = v * domain.weights @ kernel(inner.weight, z, domain.points).T * scale + bias
    hidden = np.asarray(jax.nn.gelu(hidden, approximate=False))
    last = kernel(np.asarray(outer.bias)[None], domain.points, np.zeros(1))[:, 0]
    expected = hidden * inside.weights @ kernel(outer.weight, domain.points, z).T / scale
    expected = expected + last / np.sqrt(MODES)
    functional = made(operator.at_points, space(9, rule="gauss_legendre"))
    found = apply(functional, u, ide.TokenDomain.uniform(TOKENS))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_scores_are_integrals_over_the_features_of_a_head():
    """Against NumPy: `√m ∫ Q K dy`, and the values of heads integrated over Ω_h × Ω_y."""
    operator = smooth_operator(attention)
    functions, u = space(12), np.asarray(state(12))
    v = u - u.mean(1, keepdims=True)
    v = v / np.sqrt((v**2).mean(1, keepdims=True) + 1e-5)
    y, per_head = (np.arange(12) + 0.5) / 12, MODES // HEADS
    z = (np.arange(6) + 0.5) / 6
    heads = []
    for h in range(HEADS):
        of_head = slice(h * per_head, (h + 1) * per_head)

        def projected(linear, of_head=of_head):
            weight = linear.weight[:, of_head]
            bias = kernel(np.asarray(linear.bias[of_head])[None], z, np.zeros(1))[:, 0]
            size = np.sqrt(MODES / per_head)
            return v @ kernel(weight, z, y).T / 12 * size + bias / np.sqrt(per_head)

        query, key, value = map(projected, (operator.query, operator.key, operator.value))
        scores = np.sqrt(per_head) * query @ key.T / 6
        weights = np.exp(scores)
        mean = weights / weights.sum(1, keepdims=True) @ value
        size = np.sqrt(per_head / MODES)
        heads.append(mean @ kernel(operator.output.weight[of_head], y, z).T / 6 * size)
    bias = kernel(np.asarray(operator.output.bias)[None], y, np.zeros(1))[:, 0]
    expected = sum(heads) + bias / np.sqrt(MODES)
    functional = made(operator.at_points, functions)
    found = apply(functional, u, ide.TokenDomain.uniform(TOKENS))
    np.testing.assert_allclose(found, expected, atol=1e-12)


@eqx.filter_jit
def coefficients_of_rate(make, points, rule, basis):
    """The first coefficients of what an operator gives, which do not depend on the points."""
    functions = space(points, basis, rule)
    operator = smooth_operator(make).at_points(functions)
    rate = operator(state(points, rule), ide.TokenDomain.uniform(TOKENS))
    return rate @ functions.features.duals


@pytest.mark.parametrize(
    "make",
    [
        attention,
        feed_forward,
        *(pytest.param(x, marks=pytest.mark.heavy) for x in (gated, integral)),
    ],
)
def test_orders_in_width(make):
    """The midpoint rule is of second order for polynomials, Gauss and Legendre's spectral."""
    fine = coefficients_of_rate(make, 48, "gauss_legendre", ide.Legendre())

    def error(points, rule="midpoint"):
        return abs(coefficients_of_rate(make, points, rule, ide.Legendre()) - fine).max()

    assert observed_order(error, (96, 192)) == pytest.approx(2, abs=0.2)
    assert error(24, "gauss_legendre") < 1e-9
    assert error(24, "clenshaw_curtis") < 1e-6


def test_the_midpoint_rule_is_spectral_for_cosines():
    """A cosine series is even about both ends, so that they are no ends for it."""

    @eqx.filter_jit
    def rate(points):
        functions = space(points)
        c = jnp.outer(jnp.linspace(0.5, 1, TOKENS), jnp.arange(6.0) ** 2 / 10)
        u = functions.features.of_values(c)
        found = smooth_operator(feed_forward).at_points(functions)(
            u, ide.TokenDomain.uniform(5)
        )
        return found @ functions.features.duals

    assert abs(rate(24) - rate(192)).max() < 1e-3
    assert abs(rate(96) - rate(192)).max() < 1e-10


def test_norms_take_means_with_the_weights_of_the_domain():
    domain = ide.FeatureDomain(7, "gauss_legendre")
    u = np.asarray(state(7))
    mean = u @ domain.weights
    v = (u - mean[:, None]) / np.sqrt((u**2 @ domain.weights) - mean**2)[:, None]
    found = ide.Sphere(domain=domain)
    np.testing.assert_allclose(project(found, u), v, atol=1e-12)
    assert abs(found.residual(jnp.asarray(v))).max() < 1e-13
    du = np.cos(u)
    step = 1e-6
    there, back = (np.asarray(project(found, u + s * du)) for s in (step, -step))
    tangent = made(found.tangent, u, du)
    np.testing.assert_allclose(tangent, (there - back) / (2 * step), atol=1e-9)
    root = project(ide.RMSNorm(eps=0.0, domain=domain), u)
    np.testing.assert_allclose(root, u / np.sqrt(u**2 @ domain.weights)[:, None], atol=1e-12)


def test_a_gain_that_is_the_same_for_all_features_stays_it():
    gain = ide.LayerNorm(jnp.full(MODES, 3.0)).at_points(space(12)).gain
    np.testing.assert_allclose(gain, 3.0, atol=1e-14)
    scaled = ide.Scaled(smooth_operator(integral), jnp.full(MODES, 0.1)).at_points(space(12))
    np.testing.assert_allclose(scaled.rate, 0.1, atol=1e-14)
