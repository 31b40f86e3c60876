"""Bases of functions of a feature, and the rules that integrate over Ω_y."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide


BASES = [ide.Cosine(), ide.Waves(), ide.Legendre(), ide.Warped(3), ide.Nodal()]


@pytest.mark.parametrize("basis", BASES, ids=lambda x: type(x).__name__)
def test_functions_are_orthonormal(basis):
    if isinstance(basis, ide.Warped):
        basis = jax.tree.map(lambda x: x + jnp.array([1.0, -0.7, 0.4]), basis)
    # Points inside of the parts on which nodal functions are constant.
    nodes, weights = np.polynomial.legendre.leggauss(40)
    y = ((nodes + 1) / 2 + np.arange(7)[:, None]).ravel() / 7
    w = np.tile(weights / 2, 7) / 7
    phi = np.asarray(basis(jnp.asarray(y), 7))
    np.testing.assert_allclose(phi.T * w @ phi, np.eye(7), atol=1e-12)


def test_cosines_waves_and_polynomials_are_those_of_the_books():
    y = jnp.asarray(np.random.default_rng(0).uniform(size=9))
    two = np.sqrt(2)
    cosines = np.stack([np.ones(9), *(two * np.cos(a * np.pi * y) for a in (1, 2))], 1)
    waves = np.stack([np.ones(9), two * np.sin(2 * np.pi * y), two * np.cos(2 * np.pi * y)], 1)
    legendre = np.polynomial.legendre.legvander(2 * np.asarray(y) - 1, 4) * np.sqrt(
        2 * np.arange(5) + 1
    )
    np.testing.assert_allclose(ide.Cosine()(y, 3), cosines, atol=1e-14)
    np.testing.assert_allclose(ide.Waves()(y, 3), waves, atol=1e-14)
    np.testing.assert_allclose(ide.Legendre()(y, 5), legendre, atol=1e-13)
    np.testing.assert_allclose(ide.Warped()(y, 3), cosines, atol=1e-14)


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
        values = ide.Nodal()(jnp.asarray(np.arange(number) / number, dtype), number)
        np.testing.assert_array_equal(np.asarray(values).argmax(axis=1), np.arange(number))


@pytest.mark.parametrize(
    ("basis", "modes", "features", "rule", "message"),
    [
        (ide.Nodal(), 4, 6, "midpoint", "4 equal parts unequal weights"),
        (ide.Nodal(), 4, 8, "gauss_legendre", "take a multiple of 4 points"),
        (ide.Waves(), 4, 4, "periodic", "give more points than functions"),
        (ide.Waves(), 4, 4, "midpoint", "give more points than functions"),
    ],
)
def test_points_that_make_other_functions_are_refused(basis, modes, features, rule, message):
    domain = ide.FeatureDomain(features, rule)
    values = np.asarray(basis(jnp.asarray(domain.points), modes))
    assert np.abs(values.T * domain.weights @ values - np.eye(modes)).max() > 0.1
    with pytest.raises(ide.InputError, match=message):
        ide.FunctionSpace(basis, modes, domain)
    # Of a function inside, which has modes of its own.
    if isinstance(basis, ide.Waves):
        with pytest.raises(ide.InputError, match=message):
            ide.FunctionSpace(basis, 3, ide.FeatureDomain(3, rule)).inner(4)
