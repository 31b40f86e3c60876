"""Functions from one token domain on another."""

import equinox as eqx
import jax
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
    order = DRAW.permutation(7)
    shuffled = ide.TokenDomain(LINE.points[order])
    target = ide.TokenDomain(jnp.asarray(DRAW.uniform(0, 3.2, 20))[:, None])
    transfer = ide.interpolation(shuffled, target, degree=degree)
    for power in range(degree + 1):
        u, expected = (at(lambda x, p=power: x**p, domain) for domain in (shuffled, target))
        assert largest(moved(transfer, u), expected) < 1e-12
    u, expected = (at(lambda x: x ** (degree + 1), domain) for domain in (shuffled, target))
    assert largest(moved(transfer, u), expected) > 1e-3


def test_it_converges_around_a_periodic_plane():
    target = ide.TokenDomain(jnp.asarray(DRAW.uniform(0, 1, (50, 2)) * [1, 2]))

    def smooth(x, y):
        return np.sin(2 * np.pi * x) * np.cos(np.pi * y)

    for degree in (1, 3):
        errors = []
        for n in (16, 32):
            source = ide.TokenDomain.periodic((n, n), (1.0, 2.0))
            transfer = ide.interpolation(source, target, degree=degree)
            errors.append(largest(moved(transfer, at(smooth, source)), at(smooth, target)))
        assert abs(np.log2(errors[0] / errors[1]) - degree - 1) < 0.3


def test_a_box_is_linear_along_each_axis():
    source = ide.TokenDomain.uniform((3, 4, 5))
    lowest, highest = np.min(source.points, axis=0), np.max(source.points, axis=0)
    target = ide.TokenDomain(jnp.asarray(DRAW.uniform(lowest, highest, (20, 3))))
    u, expected = (at(lambda x, y, z: x * y - 2 * y * z + z, d) for d in (source, target))
    assert largest(moved(ide.interpolation(source, target), u), expected) < 1e-12


def test_scattered_points_of_the_plane_are_linear_in_triangles():
    corners = [[0, 0], [0, 1], [1, 0], [1, 1]]
    source = ide.TokenDomain(jnp.asarray(np.concatenate([corners, DRAW.uniform(size=(30, 2))])))
    target = ide.TokenDomain(jnp.asarray(DRAW.uniform(size=(20, 2))))
    transfer = ide.interpolation(source, target)
    u, expected = (at(lambda x, y: 1 + 2 * x - 3 * y, domain) for domain in (source, target))
    assert largest(moved(transfer, u), expected) < 1e-13
    outside = ide.TokenDomain(jnp.array([[1.5, 1.5]]))
    assert largest(moved(ide.interpolation(source, outside), u), np.asarray(u)[3:4]) == 0


def test_a_restriction_keeps_constants_and_integrals():
    coarse = ide.TokenDomain.trapezoid(jnp.linspace(0, 3.2, 4))
    transfer = ide.restriction(LINE, coarse)
    u = DRAW.normal(size=(2, 7, 3))
    assert largest(moved(transfer, np.ones((7, 3))), np.ones((4, 3))) < 1e-14
    # The weights of the coarse points are the shares of the fine ones.
    back = ide.interpolation(coarse, LINE)
    rows, columns, values, weights = map(
        np.asarray, (back.rows, back.columns, back.values, LINE.weights)
    )
    shares = np.bincount(columns, values * weights[rows], minlength=4)
    for fine, restricted in zip(u, moved(transfer, u), strict=True):
        assert largest(shares @ restricted, weights @ fine) < 1e-14


def test_transfers_are_made_inside_of_a_program_too_and_differentiated():
    coarse, u = ide.TokenDomain.trapezoid(jnp.linspace(0, 3.2, 4)), DRAW.normal(size=(7, 3))
    for make in (ide.interpolation, ide.restriction):
        transfer, matrix = make(LINE, coarse), np.zeros((4, 7))
        inside = jax.jit(lambda u, make=make: make(LINE, coarse)(u))(u)
        assert largest(inside, moved(transfer, u)) < 1e-14
        places = np.asarray(transfer.rows), np.asarray(transfer.columns)
        np.add.at(matrix, places, transfer.values)
        gradient = jax.jit(jax.grad(lambda u, f=transfer: jnp.sum(f(u) ** 2)))(u)
        assert largest(gradient, 2 * matrix.T @ (matrix @ u)) < 1e-13


def test_a_coarsened_grid_has_the_middles_of_blocks():
    fine = ide.TokenDomain.periodic((4, 6), (1.0, 3.0))
    coarse = ide.coarsened(fine)
    assert (coarse.grid, coarse.period) == ((2, 3), fine.period)
    assert coarse.spacing == (0.5, 1.0)
    blocks = np.asarray(fine.points).reshape(2, 2, 3, 2, 2)
    assert largest(coarse.points, blocks.mean(axis=(1, 3)).reshape(-1, 2)) < 1e-15
    u = DRAW.normal(size=(24, 3))
    means = u.reshape(2, 2, 3, 2, 3).mean(axis=(1, 3)).reshape(-1, 3)
    assert largest(moved(ide.interpolation(fine, coarse), u), means) < 1e-14
