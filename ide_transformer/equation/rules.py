"""Quadrature rules: weights of points, for integrals over all of them and up to one of them."""

import itertools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class Rule(NamedTuple):
    """Weights `w_j` of `∫ g dx ≈ Σ_j w_j g(x_j)` over an interval.

    - `end_weights[r, j]`: the weight of x_j in the integral that ends at x_{j+r}, in the place
      of w_j. Points that come before the last ones of an integral have the weights w_j, however
      far it goes, so that one row for each of its last points says all.
    """

    weights: Float[Array, " points"]
    end_weights: Float[Array, "ends points"]


def trapezoid(x: Float[Array, " points"]) -> Rule:
    """`w_j = (x_{j+1} - x_{j-1}) / 2`, and `(x_j - x_{j-1}) / 2` at the end: order 2."""
    gaps = jnp.diff(x)
    before, after = (jnp.pad(gaps / 2, side) for side in ((1, 0), (0, 1)))
    # The integral that ends at the first point has no length; its mean is that point.
    return Rule(before + after, before.at[0].set(after[0])[None])


def simpson(x: Float[Array, " points"]) -> Rule:
    """Parabolas through three points for each two gaps, and for a gap that is left at the end
    the parabola through the last three: order 4 for smooth functions on points that are a
    smooth map of equidistant ones. Source: Cartwright, "Simpson's Rule Cumulative Integration
    with MS Excel and Irregularly-spaced Data", 2017.
    """
    points, gaps = len(x), jnp.diff(x)
    a, b = gaps[0:-1:2], gaps[1::2]
    zeros = jnp.zeros(points, x.dtype)
    # Of whole pairs of gaps: at their ends, and everywhere.
    ended = zeros.at[2::2].add((a + b) / 6 * (2 - a / b))
    inner = ended.at[: 2 * len(b) : 2].add((a + b) / 6 * (2 - b / a))
    inner = inner.at[1 : 2 * len(b) : 2].add((a + b) ** 3 / (6 * a * b))
    # Of a gap that is left, from x_{i-1} to x_i: at x_i, x_{i-1} and x_{i-2}.
    a, b = gaps[:-1], gaps[1:]
    left = (
        b * (2 * b + 3 * a) / (6 * (a + b)),
        b * (b + 3 * a) / (6 * a),
        -(b**3) / (6 * a * (a + b)),
    )
    ends = []
    for lag, (whole, before) in enumerate(((ended, zeros), (inner, ended), (inner, inner))):
        with_gap = before.at[2 - lag : points - lag].add(left[lag])
        even = (jnp.arange(points) + lag) % 2 == 0
        ends.append(jnp.where(even, whole, with_gap))
    # The first gap alone has the trapezoidal rule; an integral of no length is its point.
    ends[0] = ends[0].at[:2].set(gaps[0] / 2)
    ends[1] = ends[1].at[0].set(gaps[0] / 2)
    weights = inner
    for lag, end in enumerate(ends):
        last = points - 1 - lag
        weights = weights.at[last].set(end[last])
    return Rule(weights, jnp.stack(ends))


def gauss_legendre(points: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights on [-1, 1], exact for polynomials of degree `2 points - 1`."""
    return np.polynomial.legendre.leggauss(points)


def clenshaw_curtis(points: int) -> tuple[np.ndarray, np.ndarray]:
    """Points `-cos(π j / n)`, n = points - 1, and weights on [-1, 1], exact for polynomials of
    degree n. Source: Clenshaw and Curtis, "A method for numerical integration on an automatic
    computer", 1960."""
    n = points - 1
    angles = np.pi * np.arange(points) / n
    k = np.arange(1, n // 2 + 1)
    factors = np.where(2 * k == n, 1.0, 2.0) / (4 * k**2 - 1)
    weights = 1 - np.cos(2 * np.outer(angles, k)) @ factors
    weights *= np.where((np.arange(points) == 0) | (np.arange(points) == n), 1.0, 2.0) / n
    return -np.cos(angles), weights


def nearest(x: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """The lengths of the parts of an interval that are nearest to each of its points."""
    order = np.argsort(x)
    middles = (x[order][1:] + x[order][:-1]) / 2
    lengths = np.diff(np.concatenate([bounds[:1], middles, bounds[1:]]))
    weights = np.empty_like(lengths)
    weights[order] = lengths
    return weights


def voronoi(points: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """The areas of the Voronoi cells of points in the plane, cut off at the bounds.

    Mirrored at a side, points have cells that end there. A point on a side is its own image,
    and half of its cell is inside.

    **Arguments:**

    - `points`: `[points, 2]`.
    - `bounds`: `[2, 2]`, the lower and the upper end of each axis.
    """
    from scipy.spatial import ConvexHull, Voronoi

    on_sides = points[:, :, None] == bounds
    images = []
    for sides in itertools.product((None, 0, 1), repeat=2):
        image, there = points.copy(), np.ones(len(points), bool)
        for axis, side in enumerate(sides):
            if side is not None:
                image[:, axis] = 2 * bounds[axis, side] - image[:, axis]
                there &= ~on_sides[:, axis, side]
        images.append(image[there])
    cells = Voronoi(np.concatenate(images))
    corners = (cells.vertices[cells.regions[cells.point_region[i]]] for i in range(len(points)))
    return np.array([ConvexHull(c).volume for c in corners]) / 2 ** on_sides.sum((1, 2))
