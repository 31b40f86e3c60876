"""Weights as functions of a feature: bases, quadrature over Ω_y, and operators at any width."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide
from tests.equation.problems import apply, computed
from tests.helpers import largest, observed_order
from tests.published.numpy_blocks import layer_norm, softmax


@eqx.filter_jit
def values(basis, y, num_functions):
    return basis(y, num_functions)


BASES = [ide.Cosine(), ide.equation.Legendre(), ide.equation.Nodal()]


@pytest.mark.parametrize("basis", BASES, ids=lambda x: type(x).__name__)
def test_functions_are_orthonormal(basis):
    # Points inside of the parts on which nodal functions are constant.
    nodes, weights = np.polynomial.legendre.leggauss(40)
    y = ((nodes + 1) / 2 + np.arange(7)[:, None]).ravel() / 7
    phi = np.asarray(values(basis, y, 7))
    assert largest(phi.T * np.tile(weights / 14, 7) @ phi, np.eye(7)) < 1e-12


MODES, HEADS, TOKENS, NORM = 6, 2, 5, ide.LayerNorm()
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
    return ide.Attention(MODES, HEADS, normalization=NORM, **options)


def feed_forward(**options):
    return ide.GatedFeedForward(MODES, 2 * MODES, normalization=NORM, bias=True, **options)


def state(points, rule="midpoint"):
    """A smooth function of the feature for each of a few tokens."""
    y = ide.FeatureDomain(points, rule).points
    x = np.arange(TOKENS)[:, None]
    return jnp.asarray(np.sin(2 * y + x) + 0.5 * np.cos(3 * y * (x + 1)))


def kernel(coefficients, y, xi):
    """`Σ_ab C_ab φ_b(y) φ_a(ξ)`, of cosines."""

    def phi(z, num_functions):
        a = np.arange(num_functions)
        return np.where(a == 0, 1, np.sqrt(2)) * np.cos(np.pi * np.outer(z, a))

    into, out = coefficients.shape
    return phi(y, out) @ np.asarray(coefficients).T @ phi(xi, into).T


def bias_at(y, coefficients):
    """A function with m coefficients has values of the size of these over √m."""
    c = np.asarray(coefficients)
    return kernel(c[None], y, np.zeros(1))[:, 0] / np.sqrt(len(c))


def test_feed_forwards_are_two_integrals_with_kernels():
    """Against NumPy, the weights of the rule in each integral."""
    operator, domain = smooth_operator(feed_forward), ide.FeatureDomain(9, "gauss_legendre")
    y, inside, scale = domain.points, domain.with_points(18), np.sqrt(1 / 2)
    z, u = inside.points, np.asarray(state(9, "gauss_legendre"))
    v = u - (u @ domain.weights)[:, None]
    v = v / np.sqrt(v**2 @ domain.weights + 1e-5)[:, None]

    def hidden(linear):
        integral = v * domain.weights @ kernel(linear.weight, z, y).T
        return integral * scale + bias_at(z, linear.bias)

    gate = hidden(operator.gate)
    h = gate / (1 + np.exp(-gate)) * hidden(operator.inner)
    expected = h * inside.weights @ kernel(operator.outer.weight, y, z).T / scale
    functional = computed(operator.at_points, space(9, rule="gauss_legendre"))
    expected = expected + bias_at(y, operator.outer.bias)
    assert largest(apply(functional, u, TEXT), expected) < 1e-12


def test_scores_are_integrals_over_the_features_of_a_head():
    """Against NumPy: `√m ∫ Q K dy`, and the values of heads integrated over Ω_h × Ω_y."""
    operator, v = smooth_operator(attention), layer_norm(state(12))
    y, z, modes = (np.arange(12) + 0.5) / 12, (np.arange(6) + 0.5) / 6, MODES // HEADS
    expected, scale = bias_at(y, operator.output.bias), np.sqrt(MODES / modes)
    for h in range(HEADS):
        of_head = slice(h * modes, (h + 1) * modes)
        query, key, value = (
            v @ kernel(x.weight[:, of_head], z, y).T / 12 * scale + bias_at(z, x.bias[of_head])
            for x in (operator.query, operator.key, operator.value)
        )
        mean = softmax(np.sqrt(modes) * query @ key.T / 6) @ value
        output = kernel(operator.output.weight[of_head], y, z).T
        expected = expected + mean @ output / 6 / scale
    functional = computed(operator.at_points, space(12))
    assert largest(apply(functional, state(12), TEXT), expected) < 1e-12


@eqx.filter_jit
def coefficients_of_rate(points, rule):
    """The first coefficients of what attention gives, which do not depend on the points."""
    functions = space(points, ide.equation.Legendre(), rule)
    rate = smooth_operator(attention).at_points(functions)(state(points, rule), TEXT)
    return rate @ functions.features.duals


def test_orders_in_width():
    exact = coefficients_of_rate(48, "gauss_legendre")

    def error(points):
        return largest(coefficients_of_rate(points, "midpoint"), exact)

    assert observed_order(error, (96, 192)) == pytest.approx(2, abs=0.2)
    assert largest(coefficients_of_rate(24, "gauss_legendre"), exact) < 1e-9
