"""Functions from one token domain on another."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import largest

import ide_transformer as ide


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
    transfer = ide.interpolation(shuffled, target, degree=degree)
    apart = np.abs(moved(transfer, u) - expected).max(axis=0)
    assert apart[:-1].max() < 1e-12 and apart[-1] > 1e-3


@pytest.mark.parametrize("degree", [1, 3])
def test_it_converges_around_a_periodic_plane(degree):
    target = ide.TokenDomain(jnp.asarray(DRAW.uniform(0, 1, (50, 2)) * [1, 2]))
    errors = []
    for n in (16, 32):
        source = ide.TokenDomain.periodic((n, n), (1.0, 2.0))
        u, expected = (
            at(lambda x, y: np.sin(2 * np.pi * x) * np.cos(np.pi * y), domain)
            for domain in (source, target)
        )
        transfer = ide.interpolation(source, target, degree=degree)
        errors.append(largest(moved(transfer, u), expected))
    assert abs(np.log2(errors[0] / errors[1]) - degree - 1) < 0.3


def test_scattered_points_of_the_plane_are_linear_in_triangles():
    points = np.concatenate([[[0, 0], [0, 1], [1, 0], [1, 1]], DRAW.uniform(size=(30, 2))])
    source = ide.TokenDomain(jnp.asarray(points))
    # The last is outside, and nearest to a corner.
    places = np.append(DRAW.uniform(size=(20, 2)), [[1.5, 1.5]], axis=0)
    target = ide.TokenDomain(jnp.asarray(places))
    u, expected = (at(lambda x, y: 1 + 2 * x - 3 * y, domain) for domain in (source, target))
    found = moved(ide.interpolation(source, target), u)
    assert largest(found[:-1], expected[:-1]) < 1e-13
    assert found[-1] == u[3]


def test_a_restriction_keeps_constants_and_integrals():
    coarse, u = ide.TokenDomain.trapezoid(jnp.linspace(0, 3.2, 4)), DRAW.normal(size=(7, 3))
    u[:, 0] = 1
    found = moved(ide.restriction(LINE, coarse), u)
    assert largest(found[:, 0], 1) < 1e-14
    # The weights of the coarse points are the shares of the fine ones.
    back, weights = ide.interpolation(coarse, LINE), np.asarray(LINE.weights)
    rows, columns, values = map(np.asarray, (back.rows, back.columns, back.values))
    shares = np.bincount(columns, values * weights[rows], minlength=4)
    assert largest(shares @ found, weights @ u) < 1e-14


def test_a_coarsened_grid_has_the_middles_of_blocks():
    fine, u = ide.TokenDomain.periodic((4, 6), (1.0, 3.0)), DRAW.normal(size=(24, 3))
    coarse = ide.coarsened(fine)
    assert (coarse.grid, coarse.period, coarse.spacing) == ((2, 3), fine.period, (0.5, 1.0))
    states = moved(ide.interpolation(fine, coarse), u)
    for found, x in ((coarse.points, fine.points), (states, u)):
        means = np.asarray(x).reshape(2, 2, 3, 2, -1).mean(axis=(1, 3))
        assert largest(np.reshape(found, means.shape), means) < 1e-14
